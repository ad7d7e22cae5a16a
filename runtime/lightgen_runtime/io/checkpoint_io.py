"""How a checkpoint becomes bytes on a disk, and the other way round.

Owns the file: atomic writing, safe reading, the errors of both. What is in a checkpoint
and when one is due is decided elsewhere.
"""

from __future__ import annotations

import re
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint

from lightgen_runtime.io import location
from lightgen_runtime.io.archive_check import check_archive
from lightgen_runtime.io.content_check import check_content, check_structure
from lightgen_runtime.io.integrity import HashingStream, damage_in
from lightgen_runtime.io.location import AnyPath
from lightgen_runtime.io.safetensors_file import SUFFIX, read_safetensors
from lightgen_runtime.io.store import (
    EXTENSION,
    entry_of,
    list_file,
    newest_valid,
    unlist_file,
)
from lightgen_runtime.utilities.exceptions import (
    CheckpointFormatError,
    CheckpointNotFoundError,
    MisconfigurationException,
)
from lightgen_runtime.utilities.nearest import nearest
from lightgen_runtime.utilities.rank_zero import rank_zero_warn

MapLocation = torch.device | str | dict[str, str] | None


class CheckpointIO(ABC):
    """Store, read and remove checkpoints; subclass it for another kind of storage.

    `Trainer(plugins=[MyCheckpointIO()])` has it write and read all checkpoints.
    """

    @property
    def writes_from_all_processes(self) -> bool:
        """Whether every process takes part in saving, not only the first one."""
        return False

    @abstractmethod
    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write `checkpoint` to `path`; a failure leaves what was there before.

        Args:
            checkpoint: Plain data: tensors, numbers, strings and containers of them.
            path: Where to.
            storage_options: What the caller passed to `trainer.save_checkpoint`.
        """

    @abstractmethod
    def load_checkpoint(
        self,
        path: str | Path,
        map_location: MapLocation = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read the checkpoint at `path`.

        Args:
            path: Where from.
            map_location: Where tensors go, as in `torch.load`; None is the CPU.
            weights_only: As in `torch.load`.
        """

    @abstractmethod
    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove the checkpoint at `path`; one that is gone already is no error."""

    def own_part(self, checkpoint: dict[str, Any]) -> dict[str, Any]:
        """Return what this process is to write of `checkpoint`; by default all of it.

        Called in every process that writes, from the thread that trains, before a copy is
        made for another thread.
        """
        return checkpoint

    def teardown(self) -> None:
        """Finish what is still being written; called at the end of each run."""


class TorchCheckpointIO(CheckpointIO):
    """Keep each checkpoint as one file in PyTorch's own format.

    Loading reads data only: a file can never import or run anything.
    Compat: Lightning 2.6 writes through the system's temporary folder without syncing,
    and may load files that run code.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write `checkpoint` to `path`, all of it or nothing.

        Args:
            checkpoint: Plain data.
            path: Where to.
            storage_options: Not accepted: files have none.

        Raises:
            MisconfigurationException: There are storage options.
            CheckpointWriteError: The disk is full or not writable, or the like; the old
                file, if any, is intact.
        """
        if storage_options is not None:
            raise MisconfigurationException(
                f"`save_checkpoint(..., storage_options={storage_options!r})`: checkpoints "
                "are written as plain files, which have no options. Leave them out, or give "
                "`Trainer(plugins=...)` a `CheckpointIO` of your own that reads them."
            )
        with location.writing(path) as stream:
            hashed = HashingStream(stream)
            torch.save(checkpoint, cast(BinaryIO, hashed))
        with keeping_manifest(path):
            list_file(path, entry_of(checkpoint, path, hashed.hexdigest()))

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: MapLocation = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read the checkpoint at `path`, onto the CPU unless told otherwise.

        Args:
            path: The file; one that ends in `.safetensors` gives weights alone.
            map_location: Where tensors go, as in `torch.load`; None is the CPU.
            weights_only: Accepted for compatibility; loading never runs code.

        Raises:
            OSError: The file may not be read.
            CheckpointNotFoundError: There is no file at `path`.
            CheckpointFormatError: It is empty, damaged, not a checkpoint, or holds
                objects other than plain data.
        """
        return check_content(load_data(path, map_location), path)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove the file at `path`, if it is there.

        Raises:
            OSError: It may not be removed.
        """
        location.remove(path)
        with keeping_manifest(path):
            unlist_file(path)


@contextmanager
def keeping_manifest(path: AnyPath) -> Iterator[None]:
    """Let a manifest that cannot be written be; the files say the same when it is read."""
    try:
        yield
    except OSError as error:
        folder = location.split(path)[0]
        rank_zero_warn(f"the manifest of `{folder}` is behind the files: {error}")


def load_data(path: AnyPath, map_location: MapLocation = None) -> Any:
    """Return what the file at `path` holds, whatever that is; it cannot run anything.

    Raises:
        OSError: The file may not be read.
        CheckpointNotFoundError: There is no file at `path`.
        CheckpointFormatError: It is empty, damaged, or holds objects other than data.
    """
    if not location.is_file(path):
        raise CheckpointNotFoundError(_not_found_message(path))
    with location.local_copy(path) as file:
        size = file.stat().st_size
        if size == 0:
            raise CheckpointFormatError(
                f"The checkpoint `{path}` is empty (0 bytes). {_other_than(path)}"
            )
        if file.suffix == SUFFIX:
            return read_safetensors(file, map_location)
        if not check_archive(file, path):
            raise CheckpointFormatError(_damaged_message(file, path))
        content = _load_verified(file, map_location, path)
    check_structure(content, path, size)
    return content


def _load_verified(file: Path, map_location: MapLocation, path: AnyPath) -> Any:
    """Read a file while another thread compares its checksums.

    Args:
        file: Where it can be read.
        map_location: As in `torch.load`.
        path: What the user calls it.
    """
    content, failure = None, None
    with ThreadPoolExecutor(1, "checksums") as beside:
        damage = beside.submit(damage_in, file)
        try:
            # A file can name indices outside of a sparse tensor.
            with torch.sparse.check_sparse_tensor_invariants(True):  # type: ignore[no-untyped-call]
                content = torch.load(file, map_location or "cpu", weights_only=True)
        except torch.OutOfMemoryError:
            raise
        # A damaged file makes torch raise nearly anything, from KeyError to OSError;
        # all of it means the same to the user.
        except Exception as error:
            failure = error
    if damage.result() is not None:
        raise CheckpointFormatError(
            _damaged_message(file, path, damage.result())
        ) from failure
    if isinstance(failure, MemoryError):
        raise CheckpointFormatError(
            f"The checkpoint `{path}` ({file.stat().st_size} bytes) asks for more memory "
            f"than there is. {_other_than(path)}"
        ) from failure
    if failure is not None:
        raise CheckpointFormatError(
            _unreadable_message(file, path, failure)
        ) from failure
    return content


def _other_than(path: AnyPath) -> str:
    """Name the checkpoint to use in place of the one at `path`."""
    folder, name = location.split(path)
    newest = newest_valid(folder, weights_only=True, but=[name])
    if newest is None:
        return "Name another checkpoint, or train again without one."
    return f"The newest valid one beside it is `{newest}`."


def _not_found_message(path: AnyPath) -> str:
    """Say what lies where the checkpoint was looked for."""
    folder, name = location.split(path)
    if location.exists(path):
        found = (
            f"`{path}` is a folder, not a checkpoint file. If `DistributedCheckpointIO` has "
            "written it, give the trainer that as a plugin, or make a file of it with "
            "`lightgen_runtime.io.consolidate`."
        )
        folder = str(path)
    else:
        found = f"No checkpoint at `{path}`."
        if not location.exists(folder):
            return f"{found} The folder `{folder}` does not exist either."
    names = [name for name in location.names_in(folder) if name.endswith(EXTENSION)]
    if not names:
        return f"{found} The folder `{folder}` holds no .ckpt file."
    near = nearest(name, names)
    hint = f" Nearest name: `{near}`." if near else ""
    return f"{found} In `{folder}` there are: {', '.join(names)}.{hint}"


def _damaged_message(file: Path, path: AnyPath, damage: str | None = None) -> str:
    if damage is None:
        with file.open("rb") as stream:
            is_cut = stream.read(4) == b"PK\3\4" and not zipfile.is_zipfile(stream)
        damage = "it is truncated" if is_cut else "it is not a PyTorch file, or damaged"
    return (
        f"The checkpoint `{path}` ({file.stat().st_size} bytes) cannot be read: {damage}. "
        f"{_other_than(path)}"
    )


def _unreadable_message(file: Path, path: AnyPath, error: Exception) -> str:
    """Tell a file with foreign objects from a damaged one."""
    try:
        foreign = set(get_unsafe_globals_in_checkpoint(file))
    except Exception:  # not a zip file of PyTorch's: what loading it met first
        foreign = set(re.findall(r"GLOBAL (\S+) was not an allowed", str(error)))
    if not foreign:
        return _damaged_message(file, path)
    return (
        f"The checkpoint `{path}` holds objects that are not plain data: "
        f"{', '.join(sorted(foreign))}. Loading them could run code from the file, so "
        "nothing was loaded. If you trust whoever wrote it, allow these classes with "
        "`torch.serialization.add_safe_globals([...])`; better, save it again with "
        "plain data in their place (numbers, strings, lists, dicts, tensors)."
    )
