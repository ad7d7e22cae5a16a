"""Showing how a run is getting on. Rich is imported only once a bar is drawn."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from lightgen_runtime.callbacks.progress.plain_progress import PlainProgressBar
from lightgen_runtime.callbacks.progress.progress_bar import ProgressBar
from lightgen_runtime.callbacks.progress.rich_progress import (
    RichProgressBar,
    RichProgressBarTheme,
)
from lightgen_runtime.callbacks.progress.tqdm_progress import TQDMProgressBar

__all__ = [
    "PlainProgressBar",
    "ProgressBar",
    "RichProgressBar",
    "RichProgressBarTheme",
    "TQDMProgressBar",
    "default_progress_bar",
]


def default_progress_bar() -> ProgressBar:
    """Return a moving bar on a terminal, plain lines in a file or pipe."""
    if sys.stderr.isatty() and find_spec("rich") is not None:
        return RichProgressBar()
    return PlainProgressBar()
