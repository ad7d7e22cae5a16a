"""Which checkpoint files a logger that uploads them has not uploaded yet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

if TYPE_CHECKING:
    from lightgen_runtime.callbacks.model_checkpoint import ModelCheckpoint

_SETTINGS = (
    "monitor",
    "mode",
    "save_last",
    "save_top_k",
    "save_weights_only",
    "_every_n_train_steps",
)


class CheckpointFile(NamedTuple):
    """One file on the disk.

    Attributes:
        path: Where it is.
        modified: When it was written, in seconds.
        score: Its monitored value, if there is one.
        aliases: "latest", and "best" where it is the best so far.
    """

    path: str
    modified: float
    score: float | None
    aliases: list[str]


class CheckpointFiles:
    """Remembers what was uploaded, so that each version of a file goes up once."""

    def __init__(self) -> None:
        self._uploaded: dict[str, float] = {}

    def take_new(self, callback: ModelCheckpoint) -> list[CheckpointFile]:
        """Return what `callback` has written since the last call, oldest first."""
        scores: dict[str, Any] = {callback.last_model_path: callback.current_score}
        scores[callback.best_model_path] = callback.best_model_score
        scores.update(callback.best_k_models)
        found = []
        for path, score in scores.items():
            if not path or not Path(path).is_file():
                continue
            modified = Path(path).stat().st_mtime
            if modified <= self._uploaded.get(path, 0.0):
                continue
            self._uploaded[path] = modified
            best = path == callback.best_model_path
            found.append(
                CheckpointFile(
                    path,
                    modified,
                    score.item() if isinstance(score, Tensor) else score,
                    ["latest", "best"] if best else ["latest"],
                )
            )
        return sorted(found, key=lambda file: file.modified)


def settings_of(callback: ModelCheckpoint) -> dict[str, Any]:
    """Return how `callback` chooses what to keep, to be stored beside a file."""
    return {name: getattr(callback, name) for name in _SETTINGS}
