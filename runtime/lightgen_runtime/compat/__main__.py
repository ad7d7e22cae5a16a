"""The commands of `python -m lightgen_runtime.compat`."""

from __future__ import annotations

import argparse
import runpy
import sys
from pathlib import Path

from lightgen_runtime.compat.check import Finding, check_path
from lightgen_runtime.compat.names import ALIASES, install
from lightgen_runtime.utilities.rank_zero import print_to_stderr

_PACKAGES = (*ALIASES, "lightgen_runtime")


def main() -> int:
    """Run one command; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m lightgen_runtime.compat",
        description="Move code from Lightning to the runtime.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser(
        "run",
        help="run an unchanged script, its Lightning imports resolved to the runtime",
    )
    run.add_argument("script", type=Path)
    run.add_argument("arguments", nargs=argparse.REMAINDER)
    check = commands.add_parser(
        "check",
        help="list what a file or folder uses that is absent or different here",
        description="List what a file or folder uses that is absent or different here. "
        "The exit status is 1 if anything is absent, else 0.",
    )
    check.add_argument("path", type=Path)
    options = parser.parse_args()
    given: Path = options.script if options.command == "run" else options.path
    if not given.exists():
        parser.error(f"there is nothing at `{given}`")
    if options.command == "check":
        return _check(given)
    if given.is_dir() and not (given / "__main__.py").exists():
        parser.error(f"`{given}` is a folder without a `__main__.py`: name a script")
    return _run(given, options.arguments)


def _run(script: Path, arguments: list[str]) -> int:
    install()
    sys.argv = [str(script), *arguments]
    sys.path.insert(0, str(script.resolve().parent))
    try:
        runpy.run_path(str(script), run_name="__main__")
    except ImportError as error:
        absent = [finding for finding in check_path(script) if not finding.works]
        # Another import may have failed, in a file that names what is absent as well.
        if not absent or not (error.name or "").startswith(_PACKAGES):
            raise
        _show(absent)
        print_to_stderr("cannot run what imports this; docs/compat/names.md has more")
        return 1
    return 0


def _check(path: Path) -> int:
    findings = list(check_path(path))
    _show(findings)
    different = sum(finding.works for finding in findings)
    absent = len(findings) - different
    print_to_stderr(
        f"{absent} absent, {different} different; docs/compat/names.md has every name"
    )
    return 1 if absent else 0


def _show(findings: list[Finding]) -> None:
    for finding in findings:
        sys.stdout.write(f"{finding.path}:{finding.line}: {finding.message}\n")


if __name__ == "__main__":
    sys.exit(main())
