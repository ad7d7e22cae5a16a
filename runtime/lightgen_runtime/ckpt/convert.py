"""Writing a checkpoint again in another form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightgen_runtime.ckpt.contents import Contents, as_json
from lightgen_runtime.io.checkpoint_io import TorchCheckpointIO
from lightgen_runtime.io.migrations import migrated
from lightgen_runtime.io.output_check import check_output
from lightgen_runtime.io.safetensors_file import write_safetensors
from lightgen_runtime.io.schema import (
    LIGHTNING_VERSION,
    OWN_KEY,
    VERSION_KEY,
    loops_from_progress,
    progress_from_loops,
)
from lightgen_runtime.utilities.atomic_write import atomic_write
from lightgen_runtime.utilities.exceptions import MisconfigurationException

_SUFFIXES = {
    "current": ".current.ckpt",
    "weights": ".weights.ckpt",
    "state-dict": ".pt",
    "safetensors": ".safetensors",
}
FORMS = tuple(_SUFFIXES)

_OF_TRAINING = ("callbacks", "optimizer_states", "lr_schedulers", OWN_KEY)


def convert(
    contents: Contents, form: str, output: Path | None, *, force: bool = False
) -> list[Path]:
    """Write what was read in another form, each file whole or not at all.

    Args:
        contents: What was read; its file is left as it is.
        form: One of `FORMS`: "current" is what this version writes, from an older version
            of ours or of Lightning's; "weights" drops what only a resumed fit needs;
            "state-dict" is torch's own; "safetensors" comes with a JSON file of all that
            is no weight.
        output: Where to; None is beside the file.
        force: Replace a file that is there, if it is none of a run's checkpoints.

    Returns:
        The files written.

    Raises:
        OutputExistsError: Something is there.
        MisconfigurationException: The output would replace the file, or its folder is not
            there, or the file does not hold what the form needs.
        MissingDependencyError: `safetensors` is not installed.
    """
    path = output or contents.path.with_name(contents.path.stem + _SUFFIXES[form])
    if path.exists() and path.samefile(contents.path):
        raise MisconfigurationException(
            f"`{path}` is the file to be converted; name another with --output"
        )
    check_output(path, force=force)
    if form == "safetensors":
        check_output(_twin_of(path), force=force)
    if form == "current":
        TorchCheckpointIO().save_checkpoint(_current(contents), path)
    elif form == "weights":
        kept = migrated(contents.checkpoint)
        kept = {key: value for key, value in kept.items() if key not in _OF_TRAINING}
        TorchCheckpointIO().save_checkpoint(kept, path)
    elif form == "state-dict":
        with atomic_write(path) as stream:
            torch.save(contents.weights, stream)
    else:
        return _as_safetensors(contents, path)
    return [path]


def _current(contents: Contents) -> dict[str, Any]:
    checkpoint = migrated(contents.checkpoint)
    if OWN_KEY in checkpoint:
        return checkpoint
    if VERSION_KEY not in checkpoint:
        raise MisconfigurationException(
            f"`{contents.path}` holds weights without a run, which have one form only: "
            "convert them to `weights`, or load them as they are"
        )
    progress = progress_from_loops(checkpoint)
    return {
        **checkpoint,
        VERSION_KEY: LIGHTNING_VERSION,
        "epoch": progress["current_epoch"],
        "loops": loops_from_progress(progress),
    }


def _as_safetensors(contents: Contents, path: Path) -> list[Path]:
    rest = {k: v for k, v in contents.checkpoint.items() if k != "state_dict"}
    others = {k: v for k, v in contents.weights.items() if not isinstance(v, Tensor)}
    if others:
        rest["state_dict"] = others
    tensors = {k: v for k, v in contents.weights.items() if k not in others}
    keys = ("epoch", "global_step", "hyper_parameters", "hparams_name")
    about = {key: as_json(rest[key]) for key in keys if key in rest}
    write_safetensors(path, tensors, about)
    twin = _twin_of(path)
    with atomic_write(twin) as stream:
        text = json.dumps(as_json(rest), indent=2, sort_keys=True, allow_nan=False)
        stream.write(f"{text}\n".encode())
    return [path, twin]


def _twin_of(path: Path) -> Path:
    """Return where all that is no weight goes, beside a safetensors file."""
    return path.with_suffix(".json")
