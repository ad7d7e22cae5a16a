"""What this process has asked the others for: torch's own flight recorder, read.

torch notes every collective that a process group begins, with the Python lines that it
comes from, in a ring that costs a run nothing more. Only the group of all processes is
looked at: in it all make the same calls in the same order.
"""

from __future__ import annotations

import math
import pickle
from typing import Any, NamedTuple

from torch._C import _distributed_c10d as c10d

from lightgen_runtime.utilities.call_site import is_users

_NAME = "0"  # of the group of all processes, in the record
# Others, such as `all_gather`, may have another shape in each process.
_SAME_SIZES = ("all_reduce", "broadcast", "reduce")
# In which DistributedDataParallel talks.
_FORWARD, _BACKWARD = "_pre_forward", "_engine_run_backward"


class Call(NamedTuple):
    """One collective of one process.

    Attributes:
        number: Of the call, from 1.
        name: Of the operation.
        content: What the others' must be like: a count of elements and their type.
    """

    number: int
    name: str
    content: str


def position(cuda: bool) -> tuple[int, int] | None:
    """Return how many calls were begun and how many are done; None if nothing tells.

    Args:
        cuda: Whether the processes talk by NCCL.
    """
    status = _record(cuda, includeCollectives=False).get("pg_status", {}).get(_NAME)
    if status is None:
        return None
    return status["last_enqueued_collective"], status["last_completed_collective"]


def calls(cuda: bool, most: int) -> list[Call]:
    """Return the newest calls, oldest first.

    Args:
        cuda: See `position`.
        most: How many.
    """
    entries = _entries(cuda, stacks=False)[-most:]
    return [_call(entry) for entry in entries]


def described(cuda: bool, number: int, training_step: str) -> str:
    """Say what a call of this process is for, and on which line of the program.

    Args:
        cuda: See `position`.
        number: Of the call.
        training_step: Where that is defined: its gradients name no line.
    """
    found = [
        entry
        for entry in _entries(cuda, stacks=True)
        if entry["collective_seq_id"] == number
    ]
    if not found:
        return "nothing yet"
    call, frames = _call(found[0]), found[0].get("frames") or []
    said = f"{call.name} {call.content}".rstrip()
    inner, site = _inner_and_site(frames)
    if not frames or (_BACKWARD in inner and "manual_backward" not in inner):
        # On GPUs a thread of autograd's begins it, which runs no Python.
        return f"gradients of `training_step` at {training_step} ({said})"
    if _FORWARD in inner:
        return f"the beginning of `training_step` at {training_step} ({said})"
    purpose = next((_PURPOSES[name] for name in inner if name in _PURPOSES), "")
    asked = next((name for name in inner if name in _ASKED), call.name)
    what = purpose or f"`{asked}`"
    return f"{what} at {site or 'an unknown line'} ({said})"


# What the runtime itself asks the others for.
_PURPOSES = {
    "manual_backward": "gradients of `manual_backward`",
    "_share_processors": "the beginning of the run",
    "_share_folders": "the beginning of the run",
    "prepare": "the beginning of the run",
    "agree_on_step": "values logged with `sync_dist=True`",
    "agree_on_epoch": "values logged in an epoch",
    "agree_on_stop": "whether to stop",
    "sync_buffers": "buffers of the module",
    "save_checkpoint": "a checkpoint",
    "teardown": "the end of the run",
}
# The methods by which modules and callbacks talk to the other processes.
_ASKED = (
    "all_gather",
    "barrier",
    "broadcast",
    "gather_objects",
    "reduce",
    "reduce_boolean_decision",
)


def _inner_and_site(frames: list[dict[str, Any]]) -> tuple[list[str], str]:
    """Return the functions inside of the user's line, outermost first, and that line."""
    names: list[str] = []
    for frame in frames:
        if is_users(frame["filename"]):
            return names[::-1], f"{frame['filename']}:{frame['line']}"
        names.append(frame["name"])
    return names[::-1], ""


def _call(entry: dict[str, Any]) -> Call:
    name = entry["profiling_name"].rpartition(":")[2]
    content = ""
    if name in _SAME_SIZES and entry["input_sizes"]:
        elements = sum(math.prod(size) for size in entry["input_sizes"])
        content = f"of {elements} {entry['input_dtypes'][0]}"
    return Call(entry["collective_seq_id"], name, content)


def _entries(cuda: bool, stacks: bool) -> list[dict[str, Any]]:
    entries = _record(cuda, includeStackTraces=stacks).get("entries", [])
    return [
        entry
        for entry in entries
        if entry["process_group"][0] == _NAME and not entry["is_p2p"]
    ]


def _record(cuda: bool, **which: bool) -> dict[str, Any]:
    dump = getattr(c10d, "_dump_nccl_trace" if cuda else "_dump_fr_trace", None)
    if dump is None:
        return {}
    options = {"includeCollectives": True, "includeStackTraces": False, **which}
    record: dict[str, Any] = pickle.loads(dump(**options))
    return record
