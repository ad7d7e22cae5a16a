"""Reading what `torch.distributed.checkpoint` knows of a folder, without running any of it.

Its `.metadata` is a pickle, which may name any function to call. Here it may only name the
classes that a list of tensors consists of.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    _MEM_FORMAT_ENCODING,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.serialization import _get_layout

from lightgen_runtime.utilities.exceptions import CheckpointFormatError

# Not `BytesStorageMetadata`: those entries are pickles in their turn, and none is ours.
_RECORDS = (
    *(ChunkStorageMetadata, Metadata, MetadataIndex, StorageMeta),
    *(TensorProperties, TensorStorageMetadata, _StorageInfo),
)
_ALLOWED: dict[tuple[str, str], Any] = {
    (found.__module__, found.__qualname__): found
    for found in (*_RECORDS, _MEM_FORMAT_ENCODING, _get_layout, torch.Size)
}


# In Python, not C, so that the meaning of an instruction can be replaced.
class _Unpickler(pickle._Unpickler):
    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        """Return one of the few classes, or a dtype."""
        dtype = getattr(torch, name, None) if module == "torch" else None
        if isinstance(dtype, torch.dtype):
            return dtype
        if (module, name) not in _ALLOWED:
            raise CheckpointFormatError(f"it names `{module}.{name}`")
        return _ALLOWED[module, name]

    def load_build(self) -> None:
        """Set the attributes of a record: of a class they would outlive the reading."""
        if type(self.stack[-2]) not in _RECORDS:  # type: ignore[attr-defined]
            raise CheckpointFormatError("it changes what is no record")
        super().load_build()  # type: ignore[misc]

    dispatch[pickle.BUILD[0]] = load_build


def read_metadata(folder: Path) -> Metadata:
    """Return the list of tensors in `folder`.

    Raises:
        OSError: It may not be read.
        CheckpointFormatError: There is none, it is damaged, or it holds more than a list
            of tensors.
    """
    path = folder / ".metadata"
    if not path.is_file():
        raise CheckpointFormatError(
            f"The folder `{folder}` is no checkpoint, or not a whole one: it has no "
            "`.metadata`. Name another checkpoint, or train again without one."
        )
    content = path.open("rb")
    with content:
        try:
            metadata = _Unpickler(content).load()
            _check(metadata)
        except (OSError, MemoryError):
            raise
        # A damaged pickle makes Python raise nearly anything.
        except Exception as error:
            reason = error if isinstance(error, CheckpointFormatError) else "damaged"
            raise CheckpointFormatError(
                f"`{path}` is not the list of tensors that it should be: {reason}. It "
                "could run code or point elsewhere, so nothing was loaded. Name another "
                "checkpoint, or train again without one."
            ) from error
    assert isinstance(metadata, Metadata)
    return metadata


def _check(metadata: Any) -> None:
    """Raise unless each entry is a tensor in a file of the folder itself."""
    if not isinstance(metadata, Metadata):
        raise CheckpointFormatError(f"it holds a {type(metadata).__name__}")
    for name, tensor in metadata.state_dict_metadata.items():
        if not isinstance(tensor, TensorStorageMetadata):
            raise CheckpointFormatError(f"`{name}` is no tensor")
    for index, where in (metadata.storage_data or {}).items():
        file = where.relative_path
        if Path(file).name != file or "\\" in file or where.transform_descriptors:
            raise CheckpointFormatError(f"`{index.fqn}` lies in `{file}`")
