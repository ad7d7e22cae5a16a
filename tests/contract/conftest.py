"""Lets the contract tests import the recording classes beside them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
