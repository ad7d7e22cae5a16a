"""Lets `python -m lightgen` stand for the `lightgen` command."""

from lightgen.cli import main

if __name__ == "__main__":
    main()
