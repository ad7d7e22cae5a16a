"""What a command tells: one record for programs, one table for people."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from lightgen_runtime.trainer.ckpt_path import newest_checkpoint

if TYPE_CHECKING:
    from lightgen_runtime.trainer.trainer import Trainer

Status = Literal["completed", "interrupted", "failed"]


@dataclass(frozen=True)
class Summary:
    """The result of one command.

    Attributes:
        command: fit, validate, test, predict or export.
        run: The run's folder; `None` where the command belongs to none.
        status: How it ended.
        metrics: The last value of each logged metric.
        ckpt_path: The checkpoint it started from.
        best_checkpoint: The best that this fit wrote; until it has written one, the best
            of the fit that it resumes.
        last_checkpoint: The newest that this fit wrote; until it has written one, the
            one that it resumes from.
        predictions: The file that predict wrote.
        exported: The file that export wrote.
        seconds: Duration; of a fit that went on in its folder, of all its parts, but for
            one that was killed.
        epochs: Epochs completed by the model so far.
        steps: Optimizer steps of the model so far.

    All paths are relative to the current folder where they are inside it.
    """

    command: str
    run: str | None
    status: Status
    metrics: dict[str, float]
    ckpt_path: str | None
    best_checkpoint: str | None
    last_checkpoint: str | None
    predictions: str | None
    exported: str | None
    seconds: float
    epochs: int
    steps: int

    def as_json(self) -> dict[str, Any]:
        """Return the record as JSON data; a metric that is not finite becomes null."""
        finite = {
            name: value if math.isfinite(value) else None
            for name, value in self.metrics.items()
        }
        return {**asdict(self), "metrics": finite}


def metric_values(trainer: Trainer) -> dict[str, float]:
    """Return the last value of every metric of one number, by name."""
    return {
        name: float(value)
        for name, value in sorted(trainer.callback_metrics.items())
        if not isinstance(value, Tensor) or value.numel() == 1
    }


def checkpoint_paths(trainer: Trainer) -> tuple[str | None, str | None]:
    """Return the best and the newest checkpoint of a fit, among those that are files."""
    ranked = (getattr(c, "best_model_path", "") for c in trainer.checkpoint_callbacks)
    best = next((path for path in ranked if path and Path(path).is_file()), None)
    return shown_path(best), shown_path(newest_checkpoint(trainer))


def shown_path(path: str | Path | None) -> str | None:
    """Return `path` relative to the current folder if it is inside, with slashes."""
    if not path:
        return None
    relative = os.path.relpath(path)
    inside = not relative.startswith(os.pardir)
    return Path(relative if inside else path).as_posix()


def result_table(summary: Summary) -> str:
    """Return the table for people: metrics first, then where things are."""
    rows: dict[str, str] = {
        name: _number(value) for name, value in summary.metrics.items()
    }
    best, source = summary.best_checkpoint, summary.ckpt_path
    where = {
        "best checkpoint": best,
        "last checkpoint": None if best else summary.last_checkpoint,
        "from checkpoint": source if source and Path(source).exists() else None,
        "predictions": summary.predictions,
        "exported": summary.exported,
        "run": summary.run,
    }
    places = {name: path for name, path in where.items() if path is not None}
    places["time"] = _duration(summary)
    width = max(map(len, [*rows, *places]))
    blocks = [_lines(rows, width), _lines(places, width)]
    return "\n\n".join(block for block in blocks if block)


def _lines(rows: Mapping[str, str], width: int) -> str:
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())


def _number(value: float) -> str:
    if value == 0 or 1e-4 <= abs(value) < 1e6:
        return f"{value:.4f}"
    return f"{value:.4g}"


def _duration(summary: Summary) -> str:
    time = f"{summary.seconds:.1f} s"
    if summary.command != "fit":
        return time
    return f"{time}, {_count(summary.epochs, 'epoch')}, {_count(summary.steps, 'step')}"


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"
