"""What a checkpoint says of its own file: who keeps it, whose it is, who finds it again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightgen_runtime.io import location
from lightgen_runtime.io.schema import NO_RECORD

if TYPE_CHECKING:
    from lightgen_runtime.trainer.trainer import Trainer


def record_of(trainer: Trainer, path: str | Path) -> dict[str, Any]:
    """Return the record of the file that is about to be written."""
    records = (
        callback.record_of(str(path)) for callback in trainer.checkpoint_callbacks
    )
    record = next((record for record in records if record), NO_RECORD)
    inside = trainer.progress.is_inside_epoch
    if str(path) == trainer.interrupted_path:
        record = {**NO_RECORD, "role": "interrupted"}
    if trainer.strategy.is_parted and inside:
        record = {**record, "role": "partial"}
    if trainer.job_marks:
        marks = trainer.job_marks
        jobs = marks_inside_epoch(marks, trainer.world_size) if inside else marks
        record = {**record, "jobs": jobs}
    return {**record, "run": trainer.fit_id, "name": location.split(path)[1]}


def marks_inside_epoch(marks: list[str], world_size: int) -> list[str]:
    """Return the marks of a file from which only as many processes can go on."""
    return [f"{mark}/{world_size}" for mark in marks]
