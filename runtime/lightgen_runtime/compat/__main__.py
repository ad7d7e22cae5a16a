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
        "check", help="list what a file or folder uses that the runtime does not have"
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
    if findings:
        print_to_stderr(
            f"{len(findings)} absent; docs/compat.md says what is different"
        )
        return 1
    print_to_stderr("nothing that this code imports or passes is absent")
    return 0


if __name__ == "__main__":
    sys.exit(main())
