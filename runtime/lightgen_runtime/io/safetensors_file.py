"""Weights as a safetensors file: tensors by name, and text that says what they are of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightgen_runtime.io.archive_check import USE_ANOTHER
from lightgen_runtime.utilities.atomic_write import atomic_write
from lightgen_runtime.utilities.exceptions import (
    CheckpointFormatError,
    MisconfigurationException,
)
from lightgen_runtime.utilities.imports import import_extra

SUFFIX = ".safetensors"
# Under this key of the file's own metadata, as JSON.
_KEY = "lightgen"
_INSTALL = "pip install safetensors"


def write_safetensors(
    path: Path, state_dict: Mapping[str, Any], about: dict[str, Any]
) -> None:
    """Write weights to `path`, all of them or nothing.

    Args:
        path: The file.
        state_dict: Tensors by name.
        about: What `read_safetensors` gives back beside them, as JSON can say it.

    Raises:
        MissingDependencyError: `safetensors` is not installed.
        MisconfigurationException: An entry is no tensor.
    """
    writer = import_extra(
        "safetensors.torch", install=_INSTALL, used_by=f"Writing `{path}`"
    )
    tensors, storages = {}, set()
    for name, value in state_dict.items():
        if not isinstance(value, Tensor):
            raise MisconfigurationException(
                f"`{name}` of the state is a {type(value).__name__}: a safetensors file "
                "holds tensors only. Use another format, or leave `get_extra_state` out."
            )
        tensor = value.detach().cpu().contiguous()
        if tensor.untyped_storage().data_ptr() in storages:
            tensor = tensor.clone()  # the format has no shared weights
        storages.add(tensor.untyped_storage().data_ptr())
        tensors[name] = tensor
    metadata = {"format": "pt", _KEY: json.dumps(about)}
    content = writer.save(tensors, metadata)
    with atomic_write(path) as stream:
        stream.write(content)


def read_safetensors(path: Path, map_location: Any = None) -> dict[str, Any]:
    """Return the weights at `path`, and what was written about them, as a checkpoint.

    Args:
        path: The file; its header is validated by the library.
        map_location: A device; None is the CPU.

    Raises:
        MissingDependencyError: `safetensors` is not installed.
        CheckpointFormatError: The file is damaged or not of that format.
    """
    library = import_extra("safetensors", install=_INSTALL, used_by=f"Reading `{path}`")
    try:
        with library.safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
            names = file.keys()
            weights = {name: file.get_tensor(name) for name in names}
        about = json.loads(metadata.get(_KEY, "{}"))
    except (library.SafetensorError, ValueError, RecursionError) as error:
        raise CheckpointFormatError(
            f"`{path}` ({path.stat().st_size} bytes) cannot be read as a safetensors "
            f"file: {error}. {USE_ANOTHER}"
        ) from error
    if isinstance(map_location, (str, torch.device)):
        weights = {name: weight.to(map_location) for name, weight in weights.items()}
    return {**(about if isinstance(about, dict) else {}), "state_dict": weights}
