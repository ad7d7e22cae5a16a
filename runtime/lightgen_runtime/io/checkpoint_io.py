"""How a checkpoint becomes bytes on a disk, and the other way round.

Owns the file: atomic writing, safe reading, the errors of both. What is in a checkpoint
and when one is due is decided elsewhere.
"""

from __future__ import annotations

import difflib
import zipfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint

from lightgen_runtime.utilities.atomic_write import atomic_write
from lightgen_runtime.utilities.exceptions import (
    CheckpointFormatError,
    CheckpointNotFoundError,
    MisconfigurationException,
)

MapLocation = torch.device | str | dict[str, str] | None


class CheckpointIO(ABC):
    """Store, read and remove checkpoints; subclass it for another kind of storage.

    `Trainer(plugins=[MyCheckpointIO()])` has it write and read all checkpoints.
    """

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
            OSError: The disk is full or not writable; the old file, if any, is intact.
        """
        if storage_options is not None:
            raise MisconfigurationException(
                f"`save_checkpoint(..., storage_options={storage_options!r})`: checkpoints "
                "are written as plain files, which have no options. Leave them out, or give "
                "`Trainer(plugins=...)` a `CheckpointIO` of your own that reads them."
            )
        with atomic_write(Path(path)) as stream:
            torch.save(checkpoint, stream)

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: MapLocation = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read the checkpoint at `path`, onto the CPU unless told otherwise.

        Args:
            path: The file.
            map_location: Where tensors go, as in `torch.load`; None is the CPU.
            weights_only: Accepted for compatibility; loading never runs code.

        Raises:
            OSError: The file may not be read.
            CheckpointNotFoundError: There is no file at `path`.
            CheckpointFormatError: It is empty, damaged, not a checkpoint, or holds
                objects other than plain data.
        """
        path = Path(path)
        if not path.is_file():
            raise CheckpointNotFoundError(_not_found_message(path))
        if path.stat().st_size == 0:
            raise CheckpointFormatError(
                f"The checkpoint `{path}` is empty (0 bytes). {_USE_ANOTHER}"
            )
        _verify_checksums(path)
        try:
            checkpoint = torch.load(
                path, map_location=map_location or "cpu", weights_only=True
            )
        except (MemoryError, torch.OutOfMemoryError):
            raise
        # A damaged file makes torch raise nearly anything, from KeyError to OSError;
        # all of it means the same to the user.
        except Exception as error:
            raise CheckpointFormatError(_unreadable_message(path)) from error
        if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
            raise CheckpointFormatError(
                f"`{path}` is not a checkpoint of a run: it holds "
                f"{_described(checkpoint)}, where a mapping with the key `state_dict` "
                f"is needed. {_USE_ANOTHER}"
            )
        return checkpoint

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove the file at `path`, if it is there."""
        Path(path).unlink(missing_ok=True)


_USE_ANOTHER = "Name another checkpoint, or train again without one."


def _not_found_message(path: Path) -> str:
    """Say what lies where the checkpoint was looked for."""
    if path.is_dir():
        found = f"`{path}` is a folder, not a checkpoint file."
        folder = path
    else:
        found = f"No checkpoint at `{path}`."
        folder = path.parent
        if not folder.is_dir():
            return f"{found} The folder `{folder}` does not exist either."
    names = sorted(entry.name for entry in folder.glob("*.ckpt"))
    if not names:
        return f"{found} The folder `{folder}` holds no .ckpt file."
    nearest = difflib.get_close_matches(path.name, names, n=1)
    hint = f" Nearest name: `{nearest[0]}`." if nearest else ""
    return f"{found} In `{folder}` there are: {', '.join(names)}.{hint}"


def _verify_checksums(path: Path) -> None:
    """Compare the content with the checksums that PyTorch's zip format carries.

    PyTorch itself does not: a flipped bit would silently become a wrong weight.
    """
    with path.open("rb") as stream:
        if not zipfile.is_zipfile(stream):
            return  # older PyTorch formats carry none
        try:
            with zipfile.ZipFile(stream) as archive:
                damaged = archive.testzip()
        except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
            raise CheckpointFormatError(_damaged_message(path)) from error
    if damaged is not None:
        raise CheckpointFormatError(_damaged_message(path))


def _damaged_message(path: Path) -> str:
    return (
        f"The checkpoint `{path}` ({path.stat().st_size} bytes) cannot be read: it is "
        f"truncated, damaged or not a PyTorch file. {_USE_ANOTHER}"
    )


def _unreadable_message(path: Path) -> str:
    """Tell a file with foreign objects from a damaged one."""
    try:
        foreign = get_unsafe_globals_in_checkpoint(path)
    except Exception:  # not even a zip file of PyTorch's
        foreign = []
    if not foreign:
        return _damaged_message(path)
    return (
        f"The checkpoint `{path}` holds objects that are not plain data: "
        f"{', '.join(sorted(foreign))}. Loading them could run code from the file, so "
        "nothing was loaded. If you trust whoever wrote it, allow these classes with "
        "`torch.serialization.add_safe_globals([...])`; better, save it again with "
        "plain data in their place (numbers, strings, lists, dicts, tensors)."
    )


def _described(content: object) -> str:
    if isinstance(content, dict):
        return f"a mapping with the keys {sorted(map(str, content))[:8]}"
    return f"one object of type `{type(content).__name__}`"
