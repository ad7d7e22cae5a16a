"""Which run a fit goes on with, and what has changed since."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lightgen_runtime.cli.runs import CONFIG, JOB, SUMMARY, Run, run_named, write_json
from lightgen_runtime.cli.runs import runs_newest_first as runs
from lightgen_runtime.trainer import job
from lightgen_runtime.utilities.exceptions import (
    CheckpointNotFoundError,
    MisconfigurationException,
    RunInUseError,
)
from lightgen_runtime.utilities.rank_zero import rank_zero_only
from lightgen_runtime.utilities.refused_writes import RefusedWrites

try:
    import fcntl

    _HAS_LOCKS = True
except ImportError:  # Windows
    _HAS_LOCKS = False

# Another process that looks whether a run is in use locks it for a moment.
_TRIES, _TRY_EVERY_S = 25, 0.02


@dataclass(frozen=True)
class Resumption:
    """A run to go on with, and from where."""

    run: Run
    checkpoint: Path
    files: dict[Path, bytes]  # what the fit will replace, as it was before
    former: dict[str, Any]  # the summary; empty after a kill

    @classmethod
    def of(cls, run: Run, checkpoint: Path) -> Resumption:
        """Remember the run as it is."""
        paths = [run.folder / name for name in (CONFIG, SUMMARY)]
        files = {path: path.read_bytes() for path in paths if path.is_file()}
        return cls(run, checkpoint, files, run.summary() or {})

    @property
    def seconds(self) -> float:
        """Return what the run has taken so far, as far as it is known."""
        return float(self.former.get("seconds") or 0)

    def has_added_nothing(self, steps: int) -> bool:
        """Tell whether the run had been completed and is at the same step now."""
        was_completed = self.former.get("status") == "completed"
        return was_completed and self.former.get("steps") == steps

    def begin(self) -> None:
        """Have the run count as one that is not over."""
        (self.run.folder / SUMMARY).unlink(missing_ok=True)

    def take_back(self) -> None:
        """Leave the run as if nobody had tried to go on with it."""
        for path in (self.run.folder / CONFIG, self.run.folder / SUMMARY):
            if path in self.files:
                path.write_bytes(self.files[path])
            else:
                path.unlink(missing_ok=True)

    def differences(self, config: str) -> list[str]:
        """Return a line for each setting that is another one in `config`."""
        stored = self.files.get(self.run.folder / CONFIG, b"")
        before, now = (
            dict(_settings(yaml.safe_load(c) or {})) for c in (stored, config)
        )
        return [
            f"{name}: {before.get(name)!r} in the run so far, {now.get(name)!r} now"
            for name in sorted({*before, *now})
            if before.get(name) != now.get(name)
        ]


def choose_resumption(wanted: str) -> Resumption | None:
    """Find what a fit goes on with.

    Args:
        wanted: "auto", for the newest fit that is not over and has a checkpoint; or the
            number of a run.

    Returns:
        None if there is nothing to go on with.

    Raises:
        MisconfigurationException: `wanted` is neither.
        RunInUseError: The run, or the only one that is not over, is being trained.
        CheckpointNotFoundError: There is no such run, or it has no checkpoint.
    """
    if wanted.isdigit():
        return _of_number(wanted)
    if wanted != "auto":
        raise MisconfigurationException(
            f"`--resume {wanted}` is not accepted. Use auto (the newest run that is not "
            "over), the number of a run, or weights (a new run that begins with them)."
        )
    in_use: Run | None = None
    for run in runs():
        if run.is_over():
            continue
        if is_in_use(run):
            in_use = in_use or run
        elif (path := run.newest_sound(resumable=True)) is not None:
            return Resumption.of(run, path)
    if in_use is not None:
        raise in_use_error(in_use)
    return None


def mark_with_job(run: Run) -> None:
    """Have the run found again by this command, if a job starts it again."""
    if known := job.marks():
        path = run.folder / JOB
        with RefusedWrites().told(path, "A new start of the job begins a new run."):
            write_json(path, {"jobs": known})


def run_of_job() -> Run | None:
    """Return the run that this command has begun before its job was started again."""
    known = set(job.marks(again=True))
    return next((run for run in runs() if known & run.jobs()), None) if known else None


def _of_number(number: str) -> Resumption:
    run = run_named(number)
    if is_in_use(run):
        raise in_use_error(run)
    path = run.newest_sound(resumable=True)
    if path is None:
        raise CheckpointNotFoundError(
            f"Run {number} has no checkpoint that a fit can go on from."
        )
    return Resumption.of(run, path)


# ---- a run in use ----


def hold(run: Run) -> int | None:
    """Have the run count as in use until the process ends, or `release` is called.

    Returns:
        What to release; None where a folder cannot be locked.

    Raises:
        RunInUseError: Another process trains in it.
    """
    if not _HAS_LOCKS:
        return None
    descriptor = os.open(run.folder, os.O_RDONLY)
    for _ in range(_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_TRY_EVERY_S)
        except OSError:  # no locks there, as on some network file systems
            os.close(descriptor)
            return None
        else:
            return descriptor
    os.close(descriptor)
    raise in_use_error(run)


def in_use_error(run: Run) -> RunInUseError:
    """Return the error for a run that cannot be gone on with just now."""
    return RunInUseError(
        f"Run {run.number} is being trained by another process. Wait for its end, or begin "
        "a new run: without `--resume`, or with `--resume weights`."
    )


def release(held: int | None) -> None:
    """End what `hold` began."""
    if held is not None:
        os.close(held)


def is_in_use(run: Run) -> bool:
    """Tell whether another process trains in the folder; every rank but 0 says no.

    That is then the process of rank 0.
    """
    if not _HAS_LOCKS or rank_zero_only.rank != 0:
        return False
    descriptor = os.open(run.folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # no locks there
    finally:
        os.close(descriptor)
    return False


def _settings(config: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _settings(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value
