"""What kind of file it is, and where in it things are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from lightgen_runtime.io.checkpoint_io import load_data
from lightgen_runtime.io.content_check import check_content
from lightgen_runtime.io.distributed_checkpoint_io import DistributedCheckpointIO
from lightgen_runtime.io.schema import OWN_KEY, VERSION_KEY
from lightgen_runtime.utilities.exceptions import CheckpointFormatError

HYPERPARAMETERS = {
    "hyper_parameters": "model",
    "datamodule_hyper_parameters": "data",
}


@dataclass(frozen=True)
class Contents:
    """A file that has been read.

    Attributes:
        path: The file.
        kind: In words, what it is.
        checkpoint: Its content; a file of weights alone has `state_dict` only.
    """

    path: Path
    kind: str
    checkpoint: dict[str, Any]

    @property
    def size(self) -> int:
        """Return how many bytes it takes on the disk."""
        if self.path.is_dir():
            return sum(part.stat().st_size for part in self.path.iterdir())
        return self.path.stat().st_size

    @property
    def weights(self) -> dict[str, Any]:
        """Return the entries of `state_dict`, by name."""
        return dict(self.checkpoint["state_dict"])

    @property
    def own(self) -> dict[str, Any]:
        """Return what lies under our own key."""
        return dict(self.checkpoint.get(OWN_KEY) or {})

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """Return those of module and datamodule, by `model.NAME` and `data.NAME`."""
        return {
            f"{owner}.{name}": value
            for key, owner in HYPERPARAMETERS.items()
            for name, value in (self.checkpoint.get(key) or {}).items()
        }

    @property
    def is_resumable(self) -> bool:
        """Tell whether a fit can go on from it."""
        return "optimizer_states" in self.checkpoint


def read(path: Path) -> Contents:
    """Read the file at `path`, of whatever kind it is, onto the CPU.

    Raises:
        CheckpointNotFoundError: There is no such file.
        CheckpointFormatError: It is damaged, or no file of weights.
    """
    if path.is_dir():
        return _read_folder(path)
    content = load_data(path)
    if path.suffix == ".safetensors":
        return Contents(path, "safetensors, weights only", check_content(content, path))
    if isinstance(content, Mapping) and "state_dict" not in content and _named(content):
        content = {"state_dict": dict(content)}
        return Contents(path, "state_dict of torch", check_content(content, path))
    checkpoint = check_content(content, path)
    return Contents(path, _kind(checkpoint), checkpoint)


def _read_folder(path: Path) -> Contents:
    if not (path / ".metadata").is_file():
        raise CheckpointFormatError(
            f"`{path}` is a folder; name a file in it, such as last.ckpt"
        )
    checkpoint = DistributedCheckpointIO().load_checkpoint(path)
    kind = f"{_kind(checkpoint)}, a folder of torch.distributed.checkpoint"
    return Contents(path, kind, check_content(checkpoint, path))


def _named(content: Mapping[Any, Any]) -> bool:
    return bool(content) and all(
        isinstance(name, str) and isinstance(value, Tensor)
        for name, value in content.items()
    )


def _kind(checkpoint: dict[str, Any]) -> str:
    own = checkpoint.get(OWN_KEY)
    if own is not None:
        kind = f"checkpoint of lightgen, format {own.get('format', 'unknown')}"
    elif VERSION_KEY in checkpoint:
        # Without the key of our own, ours and Lightning's are alike.
        kind = f"checkpoint in the format of Lightning {checkpoint[VERSION_KEY]}"
    else:
        kind = "weights in a mapping"
    return kind if "optimizer_states" in checkpoint else f"{kind}, weights only"


def nbytes(value: Any) -> int:
    """Return how many bytes the tensors in `value` take."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, Mapping):
        return sum(map(nbytes, value.values()))
    return sum(map(nbytes, value)) if isinstance(value, (list, tuple, set)) else 0


def as_json(value: Any) -> Any:
    """Return `value` as JSON can say it: tensors by their shape, what is odd as text."""
    if isinstance(value, Mapping):
        return {str(key): as_json(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [as_json(entry) for entry in value]
    if isinstance(value, Tensor):
        if value.numel() == 1:
            return as_json(value.item())
        return {"shape": list(value.shape), "dtype": dtype_of(value)}
    if isinstance(value, float) and value - value != 0:
        return str(value)  # JSON has no infinity
    return (
        value if isinstance(value, (bool, int, float, str, type(None))) else str(value)
    )


def dtype_of(tensor: Tensor) -> str:
    """Return a dtype's name as people write it."""
    return str(tensor.dtype).removeprefix("torch.")
