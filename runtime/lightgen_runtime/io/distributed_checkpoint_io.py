"""Checkpoints as folders, to which every process writes its part."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from lightgen_runtime.io.checkpoint_io import (
    CheckpointIO,
    MapLocation,
    TorchCheckpointIO,
    keeping_manifest,
)
from lightgen_runtime.io.named_tensors import is_spread, map_tensors
from lightgen_runtime.io.store import entry_of, list_file, unlist_file
from lightgen_runtime.utilities.exceptions import MisconfigurationException


class DistributedCheckpointIO(CheckpointIO):
    """Keep each checkpoint as a folder in the format of `torch.distributed.checkpoint`.

    Tensors that are spread over the processes, such as those of `fully_shard`, are
    written by each process in part; what all hold alike comes from the first. All that is
    no tensor lies in one file beside them, `checkpoint.pt`. A folder gets its name when it
    is complete. Loading reads data only, and also takes ordinary checkpoint files.

    To write while training goes on, wrap it: `AsyncCheckpointIO(DistributedCheckpointIO())`.
    `consolidate` makes an ordinary file of a folder.

    All processes have to see the same file system.
    """

    writes_from_all_processes = True

    def __init__(self) -> None:
        self._world: Any = None
        self._group: dist.ProcessGroup | None = None

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write `checkpoint` to the folder `path`. Collective: every process calls it.

        Args:
            checkpoint: Plain data.
            path: The folder; what is there is replaced when the new one is complete.
            storage_options: Not accepted: folders have none.

        Raises:
            MisconfigurationException: There are storage options.
            OSError: The disk of any process is full or not writable; what was at `path`
                is intact.
        """
        if storage_options is not None:
            raise MisconfigurationException(
                f"`save_checkpoint(..., storage_options={storage_options!r})`: checkpoints "
                "are written as plain folders, which have no options. Leave them out."
            )
        from lightgen_runtime.io.sharded_folder import write

        part = self.own_part(checkpoint)
        write(part, Path(path), self._group)
        if self._group is None or dist.get_rank(self._group) == 0:
            with keeping_manifest(path):
                list_file(path, entry_of(part, path))

    def own_part(self, checkpoint: dict[str, Any]) -> dict[str, Any]:
        """Return `checkpoint` without the content of tensors that others write.

        Collective: every process calls it, from the thread that trains. Writing may then
        happen in another thread, over connections of its own.
        """
        self._join()
        if self._group is None or dist.get_rank(self._group) == 0:
            return checkpoint

        def keep(name: str, tensor: Tensor) -> Tensor:
            return tensor if is_spread(tensor) else tensor.detach().to("meta")

        part: dict[str, Any] = map_tensors(checkpoint, keep)
        return part

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: MapLocation = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read all of the checkpoint at `path`: a folder, or an ordinary file.

        Args:
            path: The folder or file.
            map_location: Where tensors go, as in `torch.load`; None is the CPU.
            weights_only: Accepted for compatibility; loading never runs code.

        Raises:
            OSError: It may not be read.
            CheckpointNotFoundError: There is nothing at `path`.
            CheckpointFormatError: It is incomplete, damaged, not a checkpoint, or holds
                objects other than plain data.
        """
        from lightgen_runtime.io.sharded_folder import found_at, read

        folder = found_at(Path(path))
        if folder is None:
            return TorchCheckpointIO().load_checkpoint(path, map_location)
        if isinstance(map_location, Mapping):
            map_location = map_location.get("cpu")
        return read(folder, torch.device(map_location or "cpu"))

    def load_into(self, path: str | Path, state: dict[str, Any]) -> None:
        """Fill the tensors of `state` from the folder `path`, in place.

        Collective: every process calls it, and reads only what its tensors hold. The
        checkpoint may have been written by another number of processes.

        Args:
            path: The folder.
            state: Tensors at the places that they have in the checkpoint, such as
                `{"state_dict": module.state_dict()}`; all else in it is ignored.

        Raises:
            CheckpointNotFoundError: There is no folder at `path`.
            CheckpointFormatError: It is incomplete, damaged or not a checkpoint.
            CheckpointMismatchError: It has no tensor of that name and shape.
        """
        from lightgen_runtime.io.sharded_folder import read_into

        self._join()
        read_into(Path(path), state, self._group)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove the folder or file at `path`, if it is there."""
        from lightgen_runtime.io.sharded_folder import remove

        remove(Path(path))
        with keeping_manifest(path):
            unlist_file(path)

    def teardown(self) -> None:
        """See `CheckpointIO`."""
        if self._group is not None and self._world is dist.group.WORLD:
            dist.destroy_process_group(self._group)
        self._world = self._group = None

    def _join(self) -> None:
        """Connect the processes for checkpoints alone, unless they are.

        Over the connections of the training, its messages and those of a thread would
        come in any order.
        """
        if not (dist.is_available() and dist.is_initialized()):
            self._world = self._group = None
        elif self._world is not dist.group.WORLD:
            self._world = dist.group.WORLD
            self._group = dist.new_group(backend="gloo")


def consolidate(folder: str | Path, path: str | Path) -> None:
    """Make an ordinary checkpoint file of a folder that `DistributedCheckpointIO` wrote.

    No other process is needed. The state is held in memory once.

    Args:
        folder: The folder.
        path: Where the file goes.

    Raises:
        OSError: The folder may not be read, or the file not be written.
        CheckpointNotFoundError: There is nothing at `folder`.
        CheckpointFormatError: The folder is incomplete, damaged or not a checkpoint.
    """
    checkpoint = DistributedCheckpointIO().load_checkpoint(folder)
    TorchCheckpointIO().save_checkpoint(checkpoint, path)
