"""What a checkpoint says of its own file: who keeps it, whose it is, who finds it again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightgen_runtime.io import location
from lightgen_runtime.io.schema import NO_RECORD, OWN_KEY

if TYPE_CHECKING:
    from lightgen_runtime.trainer.trainer import Trainer


def record_of(
    trainer: Trainer, path: str | Path, checkpoint: dict[str, Any]
) -> dict[str, Any]:
    """Return the record of the file that is about to be written.

    Args:
        trainer: Whose file it is.
        path: Where it will be.
        checkpoint: What it will hold.
    """
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
        share = checkpoint.get(OWN_KEY, {}).get("share")
        is_bound = inside and (share is None or share["why"] is not None)
        marks = trainer.job_marks
        if is_bound:
            marks = marks_of_as_many(marks, trainer.world_size)
        record = {**record, "jobs": marks}
    return {**record, "run": trainer.fit_id, "name": location.split(path)[1]}


def marks_of_as_many(marks: list[str], world_size: int) -> list[str]:
    """Return the marks of a file from which only as many processes can go on."""
    return [f"{mark}/{world_size}" for mark in marks]
