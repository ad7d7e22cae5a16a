"""Flags that stand for many others."""

from __future__ import annotations

from typing import Any

from lightgen_runtime.loggers.logger import DummyLogger
from lightgen_runtime.utilities.exceptions import MisconfigurationException

# What a bare trainer does without, and what the flag must then not ask for.
_BAREBONES = {
    "enable_checkpointing": False,
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "log_every_n_steps": 0,
    "num_sanity_val_steps": 0,
    "fast_dev_run": False,
    "detect_anomaly": False,
    "profiler": None,
}


def with_presets(flags: dict[str, Any]) -> dict[str, Any]:
    """Return the flags with `barebones` and `fast_dev_run` spelled out.

    Raises:
        MisconfigurationException: A preset contradicts another flag.
    """
    return _with_fast_dev_run(_with_barebones(flags))


def _with_barebones(flags: dict[str, Any]) -> dict[str, Any]:
    """Leave out everything that is not training."""
    if not flags["barebones"]:
        return flags
    for name, value in _BAREBONES.items():
        if flags[name]:
            raise MisconfigurationException(
                f"`Trainer(barebones=True, {name}={flags[name]!r})`: a bare trainer runs "
                f"with {name}={value!r}; remove one of the two"
            )
    return {**flags, **_BAREBONES}


def _with_fast_dev_run(flags: dict[str, Any]) -> dict[str, Any]:
    """Make a run of a few batches that leaves no files."""
    batches = flags["fast_dev_run"]
    if not batches:
        return flags
    if not isinstance(batches, int) or batches < 0:
        raise MisconfigurationException(
            f"`Trainer(fast_dev_run={flags['fast_dev_run']!r})`: True, False or a number of "
            "batches is accepted"
        )
    stages = ("train", "val", "test", "predict")
    return {
        **flags,
        **{f"limit_{stage}_batches": int(batches) for stage in stages},
        "max_epochs": 1,
        "max_steps": int(batches),
        "num_sanity_val_steps": 0,
        "val_check_interval": 1.0,
        "check_val_every_n_epoch": 1,
        "logger": flags["logger"] is not False and DummyLogger(),
    }
