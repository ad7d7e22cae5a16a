"""Runs every user script of a folder with one package, each as if it were alone.

    python run_scripts.py PACKAGE SCRIPTS WORK

Importing a package takes far longer than most scripts run, so they share a process: each
has its own namespace, folder below WORK and freshly seeded generators. The last line of
output is one JSON object: for each script, what its last line said, or its error.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
import runpy
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy
import torch

_IMPORT = re.compile(r"^(\s*(?:import|from) )lightning\b", re.MULTILINE)


def rewritten(source: str, package: str) -> str:
    """Return the script's text with its `lightning` imports naming `package`."""
    return _IMPORT.sub(rf"\g<1>{package}", source)


def run(script: Path, package: str, work: Path) -> Any:
    """Run one script in a folder of its own and return what its last line says."""
    folder = work / script.stem
    folder.mkdir()
    # Beside the folder, so that a script that lists its files does not find itself.
    copy = work / script.name
    copy.write_text(rewritten(script.read_text("utf-8"), package), encoding="utf-8")
    random.seed(0)
    numpy.random.seed(0)
    torch.manual_seed(0)
    environment = dict(os.environ)
    os.chdir(folder)
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output):
            runpy.run_path(str(copy), run_name="__main__")
    finally:
        os.environ.clear()
        os.environ.update(environment)
    return json.loads(output.getvalue().splitlines()[-1])


def main(package: str, scripts: str, work: str) -> None:
    """Run all scripts, and go on after one that fails."""
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    for script in sorted(Path(scripts).glob("*.py")):
        try:
            results[script.stem] = run(script, package, Path(work))
        except (Exception, SystemExit):
            results[script.stem] = {"error": traceback.format_exc()}
    sys.stdout.write(json.dumps(results) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
