"""A checkpoint as a folder: who writes what, how it becomes complete, how it is read.

This is the only importer of `torch.distributed.checkpoint`, which takes half a second to
import.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Container
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NoReturn
from zipfile import BadZipFile, ZipFile

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import (
    DefaultLoadPlanner,
    DefaultSavePlanner,
)
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import SavePlan
from torch.distributed.checkpoint.state_dict_loader import _load_state_dict
from torch.distributed.checkpoint.state_dict_saver import _save_state_dict

from lightgen_runtime.io.checkpoint_io import TorchCheckpointIO
from lightgen_runtime.io.folder_leftovers import discard, former, unfinished
from lightgen_runtime.io.folder_metadata import read_metadata
from lightgen_runtime.io.integrity import PLAIN_FILE
from lightgen_runtime.io.named_tensors import map_tensors
from lightgen_runtime.utilities.atomic_write import atomic_write, sync_folder
from lightgen_runtime.utilities.exceptions import (
    CheckpointFormatError,
    CheckpointMismatchError,
    CheckpointNotFoundError,
    system_error_behind,
)


def write(
    checkpoint: dict[str, Any], path: Path, group: dist.ProcessGroup | None
) -> None:
    """Write this process's part of `checkpoint` to the folder `path`.

    Args:
        checkpoint: Plain data; tensors without content (on the device "meta") are
            written by other processes.
        path: The folder. It is there when all processes have written.
        group: Those who write together; None for this process alone.
    """
    own: dict[str, Tensor] = {}
    names: set[str] = set()

    def describe(name: str, tensor: Tensor) -> Tensor:
        if tensor.layout is not torch.strided or tensor.is_quantized:
            return tensor.detach()  # goes into the plain file
        name = _unused(name, names)
        names.add(name)
        if not tensor.is_meta:
            own[name] = tensor.detach()
        return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")

    described = map_tensors(checkpoint, describe)
    try:
        _save_state_dict(
            own,
            _Writer(described, path),
            process_group=group,
            no_dist=group is None,
            planner=DefaultSavePlanner(flatten_state_dict=False),
        )
    except CheckpointException as failure:
        if group is None or dist.get_rank(group) == 0:
            shutil.rmtree(unfinished(path), ignore_errors=True)
        _raise_cause(failure)


class _Writer(FileSystemWriter):
    """Writes beside the destination, and moves the folder there when all have written."""

    def __init__(self, described: dict[str, Any], path: Path) -> None:
        super().__init__(unfinished(path))
        self._described = described
        self._destination = path

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """See `StorageWriter`; the folder is made by the first process alone."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """See `StorageWriter`; every process waits for the first one's."""
        folder = Path(self.path)
        discard(folder)  # a process that was killed may have left it
        folder.mkdir(parents=True)
        prepared: list[SavePlan] = super().prepare_global_plan(plans)
        return prepared

    def storage_meta(self) -> StorageMeta:
        """See `StorageWriter`; paths of this machine do not belong in the file."""
        return StorageMeta()

    def finish(self, metadata: Metadata, results: list[list[Any]]) -> None:
        """See `StorageWriter`; called in the first process when all have written."""
        super().finish(metadata, results)
        folder = Path(self.path)
        with atomic_write(folder / PLAIN_FILE) as stream:
            torch.save(self._described, stream)
        destination = self._destination
        aside = former(destination)
        if destination.exists() or destination.is_symlink():
            discard(aside)
            destination.rename(aside)
        folder.rename(destination)
        sync_folder(destination.parent)
        discard(aside)


def remove(path: Path) -> None:
    """Remove a folder or file; half of a folder is never taken for a checkpoint."""
    discard(former(path))
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    doomed = unfinished(path)
    discard(doomed)
    path.rename(doomed)
    discard(doomed)


def found_at(path: Path) -> Path | None:
    """Return the folder of a checkpoint at `path`, or None if no folder is there.

    Where a process was killed while it replaced one folder by another, that is the former.
    """
    for folder in (path, former(path)):
        if folder.is_dir():
            return folder
        if folder.exists():
            return None
    return None


def read(folder: Path, device: torch.device) -> dict[str, Any]:
    """Return all of the checkpoint in `folder`.

    Each tensor is read once, straight into its place where one process has written it.
    """
    described, metadata = _contents(folder)
    reader = _Reader(folder, metadata)
    names: set[str] = set()

    def fetch(name: str, tensor: Tensor) -> Tensor:
        if not tensor.is_meta:
            return tensor.to(device)
        name = _unused(name, names)
        names.add(name)
        return _put_together(name, tensor, reader).to(device)

    checkpoint: dict[str, Any] = map_tensors(described, fetch)
    return checkpoint


def damage_in_folder(folder: Path) -> str | None:
    """Return what is wrong with the checkpoint in `folder`; None if nothing is.

    Reads all of it, a part at a time.
    """
    try:
        described, metadata = _contents(folder)
        reader = _Reader(folder, metadata)
        names: set[str] = set()

        def check(name: str, tensor: Tensor) -> Tensor:
            if tensor.is_meta:
                name = _unused(name, names)
                names.add(name)
                for part in _parts_of(name, tensor, reader):
                    reader.piece(MetadataIndex(name, part.offsets))
            return tensor

        map_tensors(described, check)
    except CheckpointFormatError as error:
        return str(error)
    except FileNotFoundError as error:
        return f"`{error.filename}` is missing"
    return None


def _parts_of(name: str, like: Tensor, reader: _Reader) -> list[ChunkStorageMetadata]:
    """Return where the content of a tensor is, all of it."""
    stored = reader.metadata.state_dict_metadata.get(name)
    if not isinstance(stored, TensorStorageMetadata) or stored.size != like.shape:
        raise _damaged(reader.folder, f"the tensor `{name}` is missing")
    parts = [part for part in stored.chunks if prod(part.sizes)]
    if sum(prod(part.sizes) for part in parts) != like.numel():
        raise _damaged(reader.folder, f"parts of the tensor `{name}` are missing")
    return parts


def _put_together(name: str, like: Tensor, reader: _Reader) -> Tensor:
    parts = _parts_of(name, like, reader)
    pieces = (reader.piece(MetadataIndex(name, part.offsets)) for part in parts)
    if len(parts) == 1:
        (whole,) = pieces
        if whole.shape != like.shape:
            raise _damaged(reader.folder, f"`{name}` is of another shape")
        return whole
    whole = torch.empty(like.shape, dtype=like.dtype)
    for part, piece in zip(parts, pieces, strict=True):
        place = whole
        for axis, (start, size) in enumerate(
            zip(part.offsets, part.sizes, strict=True)
        ):
            place = place.narrow(axis, start, size)
        place.copy_(piece)
    return whole


def read_into(
    path: Path, state: dict[str, Any], group: dist.ProcessGroup | None
) -> None:
    """Fill the tensors of `state`, of which each process holds its part."""
    folder = found_at(path)
    if folder is None:
        raise CheckpointNotFoundError(
            f"No folder at `{path}`. Name one that `DistributedCheckpointIO` has written."
        )
    _, metadata = _contents(folder)
    wanted: dict[str, Tensor] = {}

    def want(name: str, tensor: Tensor) -> None:
        wanted[_unused(name, wanted)] = tensor

    map_tensors(state, want)
    for name, tensor in wanted.items():
        stored = metadata.state_dict_metadata.get(name)
        shape = stored.size if isinstance(stored, TensorStorageMetadata) else None
        if shape != tensor.shape:
            there = "none" if shape is None else f"one of shape {tuple(shape)}"
            raise CheckpointMismatchError(
                f"a tensor `{name}` of shape {tuple(tensor.shape)} is wanted, and "
                f"`{path}` has {there}. Load into the module and the optimizers that "
                "were saved."
            )
    try:
        _load_state_dict(
            wanted,
            _Reader(folder, metadata),
            process_group=group,
            no_dist=group is None,
            planner=DefaultLoadPlanner(flatten_state_dict=False),
        )
    except CheckpointException as failure:
        _raise_cause(failure)


class _Reader(FileSystemReader):
    """Reads tensors whose checksums are right, by metadata that was read safely."""

    def __init__(self, folder: Path, metadata: Metadata) -> None:
        super().__init__(folder)
        self.folder = folder
        self.metadata = metadata

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """See `StorageReader`."""
        return self.metadata

    def piece(self, index: MetadataIndex) -> Tensor:
        """Return one part of a tensor."""
        where = (self.metadata.storage_data or {}).get(index)
        if where is None:
            raise _damaged(self.folder, f"a part of `{index.fqn}` is missing")
        try:
            with (self.folder / where.relative_path).open("rb") as stream:
                content = torch.load(
                    self._slice_file(stream, where),
                    map_location="cpu",
                    weights_only=True,
                )
        except (OSError, MemoryError, CheckpointFormatError):
            raise
        # Like whole files, a damaged part makes torch raise nearly anything.
        except Exception as error:
            raise _damaged(self.folder, f"`{where.relative_path}`") from error
        if not isinstance(content, Tensor):
            raise _damaged(self.folder, f"`{where.relative_path}` holds no tensor")
        return content

    def _slice_file(self, file: Any, sinfo: Any) -> Any:
        part = _Part(file, sinfo.offset, sinfo.length)
        is_whole = file.seek(0, io.SEEK_END) >= sinfo.offset + sinfo.length
        try:
            with ZipFile(part) as archive:
                is_whole = is_whole and archive.testzip() is None
        except (BadZipFile, EOFError, NotImplementedError) as error:
            raise _damaged(self.folder, f"`{sinfo.relative_path}`") from error
        if not is_whole:
            raise _damaged(self.folder, f"`{sinfo.relative_path}`")
        part.seek(0)
        return part


class _Part(io.RawIOBase):
    """Some bytes of a file as if they were all; `torch.load` reads them into place."""

    def __init__(self, file: BinaryIO, start: int, length: int) -> None:
        self._file = file
        self._start = start
        self._length = length
        self._position = 0

    def readable(self) -> bool:
        """See `io.RawIOBase`."""
        return True

    def seekable(self) -> bool:
        """See `io.RawIOBase`."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """See `io.RawIOBase`."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._length}
        self._position = max(0, base[whence] + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """See `io.RawIOBase`."""
        wanted = memoryview(buffer).cast("B")
        count = max(0, min(len(wanted), self._length - self._position))
        self._file.seek(self._start + self._position)
        found = self._file.readinto(wanted[:count])  # type: ignore[attr-defined]
        self._position += found
        return int(found)


def _contents(folder: Path) -> tuple[dict[str, Any], Metadata]:
    plain_file = folder / PLAIN_FILE
    if not plain_file.is_file():
        raise _damaged(folder, f"it has no `{PLAIN_FILE}`")
    return TorchCheckpointIO().load_checkpoint(plain_file), read_metadata(folder)


def _unused(name: str, names: Container[str]) -> str:
    while name in names:
        name += "'"  # `{"a.b": ..., "a": {"b": ...}}` has two of a name
    return name


def _damaged(folder: Path, what: str) -> CheckpointFormatError:
    return CheckpointFormatError(
        f"The folder `{folder}` is no checkpoint, or not a whole one: {what}. Name "
        "another checkpoint, or train again without one."
    )


def _raise_cause(failure: CheckpointException) -> NoReturn:
    """Raise in every process what went wrong in one of them.

    What is worse than a full disk comes first.
    """
    errors = [
        system_error_behind(error) or error for error, _ in failure.failures.values()
    ]
    errors.sort(key=lambda error: isinstance(error, OSError))
    raise errors[0] from None
