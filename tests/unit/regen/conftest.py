"""Lets these tests import the modules beside them, and those of the generator's tests."""

import sys
from pathlib import Path

for folder in (Path(__file__).parent, Path(__file__).parents[1] / "optim"):
    sys.path.insert(0, str(folder))
