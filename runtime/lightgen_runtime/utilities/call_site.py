"""Where in a user's program something happens: `file:line`."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path
from types import FrameType, TracebackType

import torch

# What lies between a user's line and what happens in it.
_INNER = tuple(
    f"{folder}{os.sep}"
    for folder in (Path(__file__).parents[1], Path(torch.__file__).parent)
)
_STDLIB = sysconfig.get_path("stdlib") + os.sep


def is_users(filename: str) -> bool:
    """Tell whether a file of code is neither this package's, nor torch's, nor Python's."""
    if filename.startswith(("<frozen", *_INNER)):
        return False
    return not filename.startswith(_STDLIB) or "site-packages" in filename


def call_site() -> str:
    """Return the user's line that is running now; empty if there is none."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not is_users(frame.f_code.co_filename):
        frame = frame.f_back
    return "" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


def raise_site(traceback: TracebackType | None) -> str:
    """Return the user's line nearest to where an error was raised; empty if there is none."""
    found = ""
    while traceback is not None:
        filename = traceback.tb_frame.f_code.co_filename
        if is_users(filename):
            found = f"{filename}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return found


def function_site(function: object) -> str:
    """Return where a function or method is defined; empty if it is not Python's."""
    code = getattr(function, "__code__", None)
    return "" if code is None else f"{code.co_filename}:{code.co_firstlineno}"
