"""What is in a checkpoint: the one definition of its keys and types.

The keys are Lightning's, so that either can read the other's files; what Lightning has no
place for lies under one key of ours. Everything is plain data: tensors, numbers, strings
and containers of them, so that every file loads with `weights_only=True`.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections import UserList, deque
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import PurePath
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import torch
from torch import Tensor

from lightgen_runtime.io.archive_check import ALWAYS_FINE_BYTES
from lightgen_runtime.io.named_tensors import is_spread
from lightgen_runtime.utilities.exceptions import MisconfigurationException

# Source: the newest file version that Lightning 2.6.6 reads without migrating it.
LIGHTNING_VERSION = "2.6.0"
VERSION_KEY = "pytorch-lightning_version"
OWN_KEY = "lightgen"
OWN_FORMAT = 2

# What a file that nobody keeps says of itself; see `note_record`.
NO_RECORD = {"kept_by": None, "score": None, "role": None}

# Where in an epoch a checkpoint may be written, and so from where a resumed fit goes on:
EPOCH_START = 0  # nothing of the epoch has happened
BATCH_END = 1  # a batch is done; reporting and validation that it made due are not
VALIDATED = 2  # validation after that batch is done too
SETTLED = 3  # all that the batch made due is done; the next batch has not begun
EPOCH_END = 4  # no more batches; schedulers and reporting of the epoch are not done
STOPPED = 5  # the fit ended inside the epoch, whose other batches a resume still reads

_ATOMS = (type(None), bool, int, float, complex, str, bytes)
_TORCH_ATOMS = (torch.dtype, torch.device, torch.Size)


# Longer than that, a range is not written out.
_LONGEST_RANGE = 10_000
# What says by its text all there is to it.
_SPELLED_OUT = (PurePath, Decimal, Fraction, UUID)


def plain(value: Any, where: str) -> Any:
    """Return `value` as data that any safe loader reads.

    Paths, decimals and fractions become text, dates ISO text, durations seconds,
    enumerations their values, NumPy scalars numbers, NumPy arrays tensors, and dtypes
    their names; queues, ranges and other sequences become lists; instances of data
    classes (of dataclasses, attrs or pydantic) and namespaces dictionaries.

    Args:
        value: What is to be stored.
        where: Its place in the checkpoint, for the message.

    Raises:
        MisconfigurationException: The value cannot be stored as data.
    """
    kind = type(value)
    if kind in _ATOMS or isinstance(value, _TORCH_ATOMS):
        return value
    if isinstance(value, Tensor):
        return written_out(value.detach())
    if isinstance(value, Enum):
        return plain(value.value, where)
    if isinstance(value, Mapping):
        return {
            _plain_key(key, where): plain(entry, f"{where}.{key}")
            for key, entry in value.items()
        }
    for container in (list, tuple, set, frozenset):
        if isinstance(value, container):
            entries = [plain(entry, f"{where}[{i}]") for i, entry in enumerate(value)]
            # Safe loaders know sets, but no frozen ones.
            return set(entries) if container is frozenset else container(entries)
    for base in (int, float, str):
        if isinstance(value, base):
            return base(value)
    return _from_object(value, where)


def written_out(tensor: Tensor) -> Tensor:
    """Return a huge tensor with memory for each of its numbers.

    One that repeats a few, as `expand` makes them, would be refused when it is read.
    """
    if (
        tensor.layout is not torch.strided
        or tensor.is_contiguous()
        or is_spread(tensor)
        or tensor.nbytes <= max(tensor.untyped_storage().nbytes(), ALWAYS_FINE_BYTES)
    ):
        return tensor
    return tensor.contiguous()


def _plain_key(key: Any, where: str) -> Any:
    if isinstance(key, frozenset):
        raise _not_data(key, f"{where} (a key)")
    return plain(key, f"{where} (a key)")


def _from_object(value: Any, where: str) -> Any:
    if isinstance(value, _SPELLED_OUT):
        return str(value)
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, (Namespace, SimpleNamespace)):
        return plain(vars(value), where)
    if isinstance(value, (deque, UserList)) or _is_short_range(value):
        return plain(list(value), where)
    if is_dataclass(value) and not isinstance(value, type):
        return {
            f.name: plain(getattr(value, f.name), f"{where}.{f.name}")
            for f in fields(value)
        }
    return _from_other_package(value, where)


def _from_other_package(value: Any, where: str) -> Any:
    """Turn into data what belongs to a package that this one need not have."""
    numpy, pydantic = sys.modules.get("numpy"), sys.modules.get("pydantic")
    if numpy is not None:
        if isinstance(value, numpy.generic) and not isinstance(value, numpy.void):
            item = value.item()
            if not isinstance(item, numpy.generic):  # as a long double's is again
                return plain(item, where)
        if isinstance(value, numpy.ndarray):
            return _from_array(value, where)
        if isinstance(value, numpy.dtype):
            return str(value)
    if pydantic is not None and isinstance(value, pydantic.BaseModel):
        return plain(dict(value), where)
    names = [field.name for field in getattr(type(value), "__attrs_attrs__", ())]
    if names:
        return {name: plain(getattr(value, name), f"{where}.{name}") for name in names}
    # Not any sequence: a dataset is one. OmegaConf's are lists in all but their type.
    if type(value).__module__.partition(".")[0] == "omegaconf":
        return plain(list(value), where)
    raise _not_data(value, where)


def _from_array(array: Any, where: str) -> Any:
    try:
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=True))
    except TypeError:  # text, objects, dates: as lists
        return plain(array.tolist(), where)


def _is_short_range(value: Any) -> bool:
    return isinstance(value, range) and len(value) <= _LONGEST_RANGE


def _not_data(value: Any, where: str) -> MisconfigurationException:
    what = f"a {type(value).__name__}"
    if isinstance(value, type) or callable(value):
        what = f"{value!r:.80} ({type(value).__name__})"
    return MisconfigurationException(
        f"{what} at `{where}` cannot be stored in a checkpoint, which holds data only: "
        "numbers, strings, tensors and containers of them. Store what it is made from "
        "instead."
    )


def note_record(checkpoint: dict[str, Any], record: Mapping[str, Any]) -> None:
    """Let a checkpoint, also one of weights only, say what its file is kept for.

    Args:
        checkpoint: Gets the record under our key.
        record: `kept_by`, the key of the callback that keeps the file; its `score`, its
            `role` ("best", "last", "interrupted", "partial": no fit can go on from it; or
            None), the `run` that it belongs to and its `name`: a copy of it under another
            one is nobody's; and, in jobs that may be started again, `jobs`: by what the
            same fit finds it then.
    """
    own = checkpoint.setdefault(OWN_KEY, {"format": OWN_FORMAT})
    own["record"] = dict(record)


def record_in(checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what `note_record` has noted; that of a file nobody keeps where it has not."""
    own = checkpoint.get(OWN_KEY)
    record = own.get("record") if isinstance(own, Mapping) else None
    noted = record if isinstance(record, Mapping) else {}
    return {"run": None, "name": None, **NO_RECORD, **noted}


def loops_from_progress(progress: Mapping[str, int]) -> dict[str, Any]:
    """Return Lightning's `loops` entry for our counters.

    Args:
        progress: `Progress.state_dict()`.

    Source: the layout of Lightning 2.6.6's files.
    """
    steps = progress["global_step"]
    last = bool(progress["is_last_batch"])
    batch_progress, epoch_counts = _batch_counts(progress), _epoch_counts(progress)
    ready_completed = {"ready": steps, "completed": steps}
    return {
        "fit_loop": {
            "state_dict": {},
            "epoch_loop.state_dict": {
                "_batches_that_stepped": progress["batches_that_stepped"]
            },
            "epoch_loop.batch_progress": {**batch_progress, "is_last_batch": last},
            "epoch_loop.scheduler_progress": {
                "total": {"ready": 0, "completed": 0},
                "current": {"ready": 0, "completed": 0},
            },
            "epoch_loop.automatic_optimization.state_dict": {},
            "epoch_loop.automatic_optimization.optim_progress": {
                "optimizer": {
                    "step": {"total": ready_completed, "current": ready_completed},
                    "zero_grad": {
                        "total": _counts(steps, started=True),
                        "current": _counts(steps, started=True),
                    },
                }
            },
            "epoch_loop.manual_optimization.state_dict": {},
            "epoch_loop.manual_optimization.optim_step_progress": {
                "total": ready_completed,
                "current": ready_completed,
            },
            "epoch_loop.val_loop.state_dict": {},
            "epoch_loop.val_loop.batch_progress": _no_batches(),
            "epoch_progress": {
                "total": dict(epoch_counts),
                "current": dict(epoch_counts),
            },
        },
        **{
            f"{name}_loop": {"state_dict": {}, "batch_progress": _no_batches()}
            for name in ("validate", "test", "predict")
        },
    }


# Lightning counts a batch or an epoch as completed behind its last hook only, which is how
# it finds out where a file was written.
def _batch_counts(progress: Mapping[str, int]) -> dict[str, dict[str, int]]:
    at_batch_end = progress["phase"] == BATCH_END
    numbers = {"total": progress["total_batches"], "current": progress["batch_idx"]}
    return {
        which: {
            **_counts(number, started=True, processed=True),
            "completed": number - at_batch_end,
        }
        for which, number in numbers.items()
    }


def _epoch_counts(progress: Mapping[str, int]) -> dict[str, int]:
    epochs, phase = progress["current_epoch"], progress["phase"]
    started = bool(progress["batch_idx"]) and phase != STOPPED
    ended = phase == EPOCH_END or (phase == VALIDATED and progress["is_last_batch"])
    return {
        "ready": epochs + started,
        "started": epochs + started,
        "processed": epochs + bool(ended),
        "completed": epochs,
    }


def progress_from_loops(checkpoint: Mapping[str, Any]) -> dict[str, int]:
    """Return our counters for a file that Lightning wrote.

    Its counters of the running batch and epoch lag by one inside hooks; what was complete
    when it was written counts as complete here, and an epoch whose last batch was done
    counts as over.
    """
    loops = checkpoint.get("loops", {}).get("fit_loop", {})
    batch = loops.get("epoch_loop.batch_progress", {})
    stepped = loops.get("epoch_loop.state_dict", {}).get("_batches_that_stepped", 0)
    epoch = loops.get("epoch_progress", {}).get("current", {})
    begun = epoch.get("started", checkpoint.get("epoch", 0) + 1)
    ended = epoch.get("processed", 0) == begun
    over = ended or bool(batch.get("is_last_batch", True))
    return {
        "current_epoch": begun if over else checkpoint.get("epoch", 0),
        "global_step": checkpoint.get("global_step", 0),
        "batch_idx": 0 if over else batch["current"]["processed"],
        "total_batches": batch.get("total", {}).get("processed", 0),
        "batches_that_stepped": max(stepped, checkpoint.get("global_step", 0)),
        "is_last_batch": False,
        "phase": EPOCH_START if over else VALIDATED,
    }


def _counts(
    number: int, started: bool = False, processed: bool = False
) -> dict[str, int]:
    names = ["ready", "completed"]
    names += ["started"] if started else []
    names += ["processed"] if processed else []
    return dict.fromkeys(names, number)


def _no_batches() -> dict[str, Any]:
    nothing = _counts(0, started=True, processed=True)
    return {"total": dict(nothing), "current": dict(nothing), "is_last_batch": False}
