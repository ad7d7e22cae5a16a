"""The commands of `python -m lightgen_runtime.compat`."""

from __future__ import annotations

import argparse
import runpy
import sys
from pathlib import Path

from lightgen_runtime.compat.check import check_path
from lightgen_runtime.compat.names import install
from lightgen_runtime.utilities.rank_zero import print_to_stderr


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
    install()
    sys.argv = [str(given), *options.arguments]
    sys.path.insert(0, str(given.resolve().parent))
    runpy.run_path(str(given), run_name="__main__")
    return 0


def _check(path: Path) -> int:
    findings = list(check_path(path))
    for finding in findings:
        sys.stdout.write(f"{finding.path}:{finding.line}: {finding.message}\n")
    different = sum(finding.works for finding in findings)
    absent = len(findings) - different
    print_to_stderr(
        f"{absent} absent, {different} different; docs/compat/names.md has every name"
    )
    return 1 if absent else 0


if __name__ == "__main__":
    sys.exit(main())
