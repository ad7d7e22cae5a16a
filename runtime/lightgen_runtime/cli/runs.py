"""The folder `runs/`: one numbered folder a run, and finding checkpoints in it.

A run's folder holds its config, metrics, checkpoints and, at its end, `summary.json`.
A run is a fit, or the evaluation of a checkpoint that is of no run.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lightgen_runtime.io.store import Entry, reconcile, verify
from lightgen_runtime.loggers.csv_logs import METRICS_FILE
from lightgen_runtime.utilities.atomic_write import atomic_write
from lightgen_runtime.utilities.exceptions import (
    CheckpointNotFoundError,
    RunFolderError,
)
from lightgen_runtime.utilities.nearest import nearest
from lightgen_runtime.utilities.rank_zero import print_to_stderr, rank_zero_only

RUNS = Path("runs")
SUMMARY = "summary.json"
CONFIG = "config.yaml"
JOB = "job.json"
CHECKPOINTS = "checkpoints"
# What may be in a folder that no step of training has reached.
_BEFORE_TRAINING = {CONFIG, JOB, "hparams.yaml", CHECKPOINTS}

_MOST_NAMES = 5  # in one message

CheckpointKind = Literal["best", "last"]


@dataclass(frozen=True)
class Run:
    """One folder `runs/<n>`."""

    folder: Path

    @property
    def number(self) -> int:
        """Return n."""
        return int(self.folder.name)

    def checkpoint(self, kind: CheckpointKind) -> Path | None:
        """Return the best or last checkpoint of this run, if there is such a file."""
        summary = self.summary()
        if summary is not None:
            name = summary.get(f"{kind}_checkpoint")
            path = Path(name) if isinstance(name, str) else None
            return path if path is not None and path.is_file() else None
        # The run was killed, or is not over: it had no time to say which is best.
        return next(iter(self.checkpoints()), None) if kind == "last" else None

    def checkpoints(self, *, resumable: bool = False) -> list[Path]:
        """Return the files, that of the last step first.

        A copy, or a conversion, of an older file is not the newest for being written last.

        Args:
            resumable: Leave out those of weights alone.
        """
        found: list[tuple[int, bool, float, Path]] = []
        for folder in (self.folder / CHECKPOINTS, self.folder):
            entries = reconcile(folder)
            names = {*entries, *(path.name for path in folder.glob("*.ckpt"))}
            for path in (folder / name for name in names):
                entry: Entry = entries.get(path.name, {})
                has_weights_only = entry.get("weights_only", True)
                if (resumable and has_weights_only) or not path.exists():
                    continue
                step = -1 if entry.get("step") is None else entry["step"]
                time = path.stat().st_mtime
                found.append((step, not has_weights_only, time, path))
        return [path for *_, path in sorted(found, reverse=True)]

    def newest_sound(self, *, resumable: bool = False) -> Path | None:
        """Return the first of `checkpoints` that is whole; say which are not."""
        return next(filter(is_sound, self.checkpoints(resumable=resumable)), None)

    def is_over(self) -> bool:
        """Tell whether there is nothing to go on with: it is complete, or was no fit."""
        summary = self.summary()
        if summary is None:  # killed, or running
            return False
        return summary.get("command") != "fit" or summary.get("status") == "completed"

    @property
    def status(self) -> str:
        """How it ended: completed, interrupted, failed or killed."""
        summary = self.summary()
        return "killed" if summary is None else str(summary.get("status"))

    def discard_start(self) -> None:
        """Remove the folder if it holds nothing but what a start writes."""
        names = {entry.name for entry in self.folder.iterdir()}
        checkpoints = self.folder / CHECKPOINTS
        if names <= _BEFORE_TRAINING and not any(checkpoints.glob("*")):
            shutil.rmtree(self.folder)
            if not any(self.folder.parent.iterdir()):
                self.folder.parent.rmdir()

    def forget_attempt(self) -> None:
        """Remove what a start that reached no checkpoint has logged."""
        for name in (SUMMARY, METRICS_FILE):
            (self.folder / name).unlink(missing_ok=True)

    def jobs(self) -> set[str]:
        """Return what the jobs that work on the run know it by."""
        content = self._content_of(JOB) or {}
        listed = content.get("jobs")
        return set(map(str, listed)) if isinstance(listed, list) else set()

    def summary(self) -> dict[str, Any] | None:
        """Return the result; None if the run was killed, or goes on."""
        return self._content_of(SUMMARY)

    def _content_of(self, name: str) -> dict[str, Any] | None:
        try:
            content = json.loads((self.folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return content if isinstance(content, dict) else None


def is_sound(checkpoint: Path) -> bool:
    """Tell whether a file is whole; say so if not."""
    damage = verify(checkpoint)
    if damage is not None:
        say(f"passed over: `{checkpoint}`: {damage}")
    return damage is None


def say(message: str) -> None:
    """Write a line to stderr, in one of several processes."""
    if rank_zero_only.rank == 0:
        print_to_stderr(message)


def claim_run() -> Run:
    """Create `runs/<n>` with the next free number and return it.

    Two processes that claim at once get two numbers: making the folder decides.

    Raises:
        RunFolderError: The folder cannot be made.
    """
    newest = next(runs_newest_first(), None)
    number = newest.number + 1 if newest else 1
    try:
        RUNS.mkdir(exist_ok=True)
        while True:
            try:
                (RUNS / str(number)).mkdir()
                return Run(RUNS / str(number))
            except FileExistsError:
                number += 1
    except OSError as error:
        raise RunFolderError(
            f"The folder for this run cannot be made: `{RUNS}` in {Path.cwd()}: "
            f"{error.strerror}. Grant access, make room, or move away what is there."
        ) from error


def runs_newest_first() -> Iterator[Run]:
    """Yield the runs of the project in the current folder."""
    if not RUNS.is_dir():
        return
    numbers = [int(entry.name) for entry in RUNS.iterdir() if entry.name.isdigit()]
    for number in sorted(numbers, reverse=True):
        yield Run(RUNS / str(number))


def run_of(checkpoint: Path) -> Run | None:
    """Return the run whose folder `checkpoint` is in, if any."""
    root = RUNS.resolve()
    for folder in checkpoint.resolve().parents:
        if folder.parent == root and folder.name.isdigit():
            return Run(RUNS / folder.name)
    return None


def find_checkpoint(given: str, *, sound: bool = False) -> Path:
    """Return the file that `best`, `last`, a run or a path stands for.

    Args:
        given: `best` or `last` of the newest run that has one; a run's number or folder
            for its best; or the path of a file.
        sound: Pass over damaged files where the newest is asked for, and say so.

    Raises:
        CheckpointNotFoundError: There is no such checkpoint.
    """
    if given in ("best", "last"):
        kind: CheckpointKind = "best" if given == "best" else "last"
        return _newest_checkpoint(kind, sound=sound)
    path = Path(given)
    if path.is_file():
        return path
    if given.isdigit():
        return _checkpoint_of(run_named(given))
    run = _run_at(path)
    if run is not None:
        return _checkpoint_of(run)
    raise CheckpointNotFoundError(
        f"No checkpoint at `{given}`.{_known_checkpoints(path)} Accepted: best, last, "
        "the number of a run, or the path of a .ckpt or .safetensors file."
    )


def run_named(number: str) -> Run:
    """Return the run of that number.

    Raises:
        CheckpointNotFoundError: There is none.
    """
    run = Run(RUNS / number)
    if not run.folder.is_dir():
        numbers = [str(run.number) for run in runs_newest_first()]
        raise CheckpointNotFoundError(
            f"There is no run {number}. Runs here: {', '.join(numbers) or 'none yet'}."
        )
    return run


def newest_weights() -> Path:
    """Return the best checkpoint, else the last, of the newest run that has one.

    Raises:
        CheckpointNotFoundError: No run has one.
    """
    for run in runs_newest_first():
        path = run.checkpoint("best") or run.checkpoint("last")
        if path is not None:
            return path
    return _newest_checkpoint("last", sound=True)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write `content` to `path`, all of it or nothing."""
    text = json.dumps(content, indent=2, allow_nan=False)
    with atomic_write(path) as stream:
        stream.write(f"{text}\n".encode())


def _newest_checkpoint(kind: CheckpointKind, *, sound: bool) -> Path:
    for run in runs_newest_first():
        path = run.checkpoint(kind)
        if path is not None and sound and kind == "last" and verify(path) is not None:
            path = run.newest_sound()
        if path is not None:
            return path
    where = Path.cwd() / RUNS
    if not any(runs_newest_first()):
        raise CheckpointNotFoundError(
            f"There is no {kind} checkpoint: no run yet in `{where}`. Train first, "
            "with the subcommand `fit`, or give the path of a checkpoint."
        )
    message = f"No run in `{where}` has a {kind} checkpoint.{_known_checkpoints()}"
    if kind == "best" and any(run.checkpoint("last") for run in runs_newest_first()):
        message += " `--ckpt_path last` takes the last one."
    raise CheckpointNotFoundError(message)


def _run_at(folder: Path) -> Run | None:
    is_run = folder.name.isdigit() and folder.resolve().parent == RUNS.resolve()
    return Run(RUNS / folder.name) if is_run and folder.is_dir() else None


def _checkpoint_of(run: Run) -> Path:
    path = run.checkpoint("best") or run.checkpoint("last")
    if path is None:
        raise CheckpointNotFoundError(f"Run {run.number} has no checkpoint.")
    return path


def _known_checkpoints(missing: Path | None = None) -> str:
    """Return a sentence that says which checkpoints there are, or nothing."""
    files = [
        str(path)
        for run in runs_newest_first()
        for path in sorted((run.folder / CHECKPOINTS).glob("*.ckpt"))
    ]
    if not files:
        return ""
    if missing is not None:
        by_name = {Path(path).name: path for path in reversed(files)}
        by_name.update(dict(zip(files, files, strict=True)))
        if near := nearest(missing, by_name):
            return f" Did you mean `{by_name[near]}`?"
    return f" There are: {', '.join(files[:_MOST_NAMES])}."
