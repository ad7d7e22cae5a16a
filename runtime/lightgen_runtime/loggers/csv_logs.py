"""Metrics as a CSV file and hyperparameters as YAML: no service, no extra package."""

from __future__ import annotations

import csv
import errno
import io
import os
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from torch import Tensor

from lightgen_runtime.loggers.hparams_text import as_dict, plain
from lightgen_runtime.loggers.logger import Logger
from lightgen_runtime.loggers.version_folder import claim_version
from lightgen_runtime.utilities.atomic_write import atomic_write
from lightgen_runtime.utilities.rank_zero import (
    rank_zero_info,
    rank_zero_only,
    rank_zero_warn,
)
from lightgen_runtime.utilities.refused_writes import RefusedWrites

METRICS_FILE = "metrics.csv"
HPARAMS_FILE = "hparams.yaml"
_ROWS_AT_ONCE = 1000  # so that a disk that is still full is not tried with all of them
# Of rows that wait for the disk: some 10 MB of memory, and a part of each checkpoint.
_MOST_WAITING_VALUES = 100_000


class MetricsFile:
    """Append rows to one `metrics.csv`; whole rows or none ever reach the file.

    Columns are sorted. A metric that appears late gets its column by one atomic rewrite
    of the file; rows that are there already stay, also those of an earlier run. Only a
    run that is resumed drops what came after its checkpoint. Rows that the system refuses
    to write stay buffered.

    Attributes:
        dropped: Rows that waited for the disk until there were too many.
    """

    def __init__(self, log_dir: str | Path) -> None:
        self.path = Path(log_dir) / METRICS_FILE
        self._rows: list[dict[str, float | int]] = []
        self._columns: list[str] | None = None
        self._next_step = 0
        self._count = 0
        self._digest = sha256()
        self._torn_from: int | None = None  # a part of rows that could not be cut off
        self.dropped = 0

    @property
    def waiting(self) -> int:
        """How many rows are not in the file yet."""
        return len(self._rows)

    def log_metrics(
        self, metrics: Mapping[str, float | Tensor], step: int | None = None
    ) -> None:
        """Buffer one row; `step` defaults to the number of rows so far."""
        step = self._next_step if step is None else step
        values = {
            name: value.item() if isinstance(value, Tensor) else value
            for name, value in metrics.items()
        }
        self._rows.append({"step": step, **values})
        self._next_step += 1

    def save(self) -> None:
        """Write the buffered rows to the file.

        Raises:
            OSError: The system refuses; the rows that are not in the file stay buffered.
        """
        if not self._rows:
            return
        columns = self._adopted_columns()
        if columns and not self.path.exists():  # nor the rows before: its disk is gone
            raise FileNotFoundError(
                errno.ENOENT, os.strerror(errno.ENOENT), str(self.path)
            )
        self._cut_torn()
        names = {name for row in self._rows for name in row}
        if not names <= set(columns):
            self._widen(sorted(names | set(columns)))
        while rows := self._rows[:_ROWS_AT_ONCE]:
            written = _as_csv(rows, self._adopted_columns())
            self._append(written)
            self._count_rows(csv.reader(written.decode("utf-8").splitlines()))
            del self._rows[: len(rows)]

    def drop_oldest(self, most_values: int) -> int:
        """Forget the oldest buffered rows until there are no more values than that.

        Returns:
            How many rows.
        """
        values = sum(map(len, self._rows))
        number = 0
        while values > most_values:
            values -= len(self._rows[number])
            number += 1
        del self._rows[:number]
        self.dropped += number
        return number

    def state_dict(self) -> dict[str, Any]:
        """Return how many rows the file has, and what tells them from other runs'.

        Rows that wait for the disk are a part of it.
        """
        columns = self._adopted_columns()
        waiting = {"waiting": [dict(row) for row in self._rows]} if self._rows else {}
        return {
            **waiting,
            "rows": self._count,
            "digest": self._digest.hexdigest(),
            "columns": columns,
            "path": str(self.path.resolve()),
        }

    def cut_back(self, state: Mapping[str, Any]) -> bool:
        """Drop the rows that came after those of a state; tell if it has those at all."""
        waiting = list(state.get("waiting", []))
        is_its_path = state["path"] == str(self.path.resolve())
        if not self.path.exists():
            self._rows = waiting if is_its_path else []
            return True
        self._adopted_columns()
        with self.path.open(encoding="utf-8", newline="") as stream:
            existing = list(csv.DictReader(stream))[: state["rows"]]
        columns = list(state["columns"])
        rows = [{name: row.get(name) or "" for name in columns} for row in existing]
        former = MetricsFile(self.path.parent)
        former._columns = columns
        former._count_rows(row.values() for row in rows)
        same_place = bool(rows) or is_its_path
        if former.state_dict()["digest"] != state["digest"] or not same_place:
            return False
        if former._count < self._count or columns != self._columns:
            try:
                header = dict(zip(columns, columns, strict=True))
                with atomic_write(self.path) as replacement:
                    if header:
                        replacement.write(_as_csv([header, *rows], columns))
            except OSError:  # no room for another file: columns without a value stay
                former._columns = self._columns
                os.truncate(self.path, self._end_of(former._count))
        vars(self).update(vars(former), path=self.path, _rows=waiting)
        return True

    def _end_of(self, rows: int) -> int:
        """Return where the first so many rows end in the file, in bytes."""
        with self.path.open(encoding="utf-8", newline="") as stream:
            lines = csv.reader(stream)
            for _ in range(rows + 1):  # the header
                next(lines, None)
            number = lines.line_num
        with self.path.open("rb") as content:
            return sum(len(content.readline()) for _ in range(number))

    def _count_rows(self, rows: Iterable[Iterable[str]]) -> None:
        """Take rows into the digest, which does not depend on columns without a value."""
        for values in rows:
            pairs = zip(self._columns or [], values, strict=False)
            self._digest.update(repr([pair for pair in pairs if pair[1]]).encode())
            self._count += 1

    def _adopted_columns(self) -> list[str]:
        if self._columns is None:
            self._columns = self._adopt_existing_file()
            if self._columns:
                with self.path.open(encoding="utf-8", newline="") as stream:
                    rows = csv.reader(stream)
                    next(rows)
                    self._count_rows(rows)
        return self._columns

    def _adopt_existing_file(self) -> list[str]:
        """Return the columns already there, having cut off a row a kill left torn."""
        if not self.path.exists():
            return []
        content = self.path.read_bytes()
        complete = content.rfind(b"\n") + 1
        if complete < len(content):
            with self.path.open("rb+") as stream:
                stream.truncate(complete)
        header = content[:complete].decode("utf-8").partition("\n")[0]
        return next(csv.reader([header]), [])

    def _widen(self, columns: list[str]) -> None:
        """Rewrite the file with `columns` as its header."""
        existing: list[dict[str, str]] = []
        if self.path.exists():
            with self.path.open(encoding="utf-8", newline="") as stream:
                existing = list(csv.DictReader(stream))
        with atomic_write(self.path) as replacement:
            header = dict(zip(columns, columns, strict=True))
            replacement.write(_as_csv([header, *existing], columns))
        self._columns = columns

    def _append(self, lines: bytes) -> None:
        """Add `lines` to the file, or none of them if the disk refuses."""
        stream = self.path.open("ab", buffering=0)
        self._torn_from = stream.tell()
        try:
            # What network disks refuse, some say only when the file is closed.
            with stream:
                rest = memoryview(lines)
                while rest:
                    rest = rest[stream.write(rest) :]
        except OSError:
            with suppress(OSError):
                self._cut_torn()
            raise
        self._torn_from = None

    def _cut_torn(self) -> None:
        """Remove what a failed write has left behind the last whole row."""
        if self._torn_from is not None:
            os.truncate(self.path, self._torn_from)
            self._torn_from = None


def _as_csv(rows: Sequence[Mapping[str, Any]], columns: list[str]) -> bytes:
    text = io.StringIO()
    csv.DictWriter(text, columns, restval="", lineterminator="\n").writerows(rows)
    return text.getvalue().encode("utf-8")


class CSVLogger(Logger):
    """Write metrics to `<save_dir>/<name>/version_<n>/metrics.csv`.

    Args:
        save_dir: Folder of all experiments.
        name: Folder of this experiment in it; `None` or empty for none.
        version: An integer `n` for `version_<n>`, a string for a folder of that very
            name, `None` for the first free number. Rows are added to a file that is
            there already.
        prefix: Put before each metric's name, with a dash.
        flush_logs_every_n_steps: Rows are buffered up to every so many steps.

    Compat: A disk that is full, gone or not writable is a warning and ends nothing. Rows
    wait for it, also in checkpoints, and are tried again at each flush; of more than
    100,000 values the oldest rows are dropped. The end of the fit says what is lost.
    """

    LOGGER_JOIN_CHAR = "-"

    def __init__(
        self,
        save_dir: str | Path,
        name: str | None = "lightning_logs",
        version: int | str | None = None,
        prefix: str = "",
        flush_logs_every_n_steps: int = 100,
    ) -> None:
        self._save_dir = str(save_dir)
        self._name = name or ""
        self._version = version
        self._prefix = prefix
        self._flush_every_n_steps = flush_logs_every_n_steps
        self._metrics_file: MetricsFile | None = None
        self._refused_rows = RefusedWrites()
        self._hparams: dict[str, Any] = {}
        self._hparams_wait = False
        self._refused_hparams = RefusedWrites()

    @property
    def name(self) -> str:
        """The experiment's folder below `save_dir`; may be empty."""
        return self._name

    @property
    def version(self) -> int | str:
        """The run's number or name; the first use without one claims a folder."""
        if self._version is None:
            self._version = claim_version(Path(self.root_dir))
        return self._version

    def adopt_version(self, version: int | str | None) -> None:
        """See `Logger.adopt_version`."""
        self._version = version

    @property
    def save_dir(self) -> str:
        """The folder of all experiments."""
        return self._save_dir

    @property
    def root_dir(self) -> str:
        """The folder of all versions."""
        return str(Path(self._save_dir) / self._name)

    @property
    def log_dir(self) -> str:
        """The folder of this run."""
        version = self.version
        folder = f"version_{version}" if isinstance(version, int) else version
        return str(Path(self.root_dir) / folder)

    @property
    def experiment(self) -> MetricsFile:
        """The file that receives the rows."""
        if self._metrics_file is None:
            self._metrics_file = MetricsFile(self.log_dir)
        return self._metrics_file

    def log_metrics(
        self, metrics: Mapping[str, float | Tensor], step: int | None = None
    ) -> None:
        """Add one row; it reaches the disk at the flushing cadence."""
        if rank_zero_only.rank != 0:
            return
        if self._prefix:
            metrics = {
                f"{self._prefix}{self.LOGGER_JOIN_CHAR}{name}": v
                for name, v in metrics.items()
            }
        self.experiment.log_metrics(metrics, step)
        if step is not None and (step + 1) % self._flush_every_n_steps == 0:
            self.save()

    def log_hyperparams(
        self, params: Mapping[str, Any] | Namespace | None = None
    ) -> None:
        """Add `params` to hparams.yaml, what is not plain data as its text."""
        if rank_zero_only.rank != 0 or params is None:
            return
        self._hparams.update(as_dict(params))
        self._hparams_wait = True
        self._save_hparams()

    def _save_hparams(self) -> None:
        import yaml

        path = Path(self.log_dir) / HPARAMS_FILE
        with self._refused_hparams.told(path, "It is tried again with the metrics."):
            with atomic_write(path) as stream:
                text = yaml.safe_dump(plain(self._hparams), sort_keys=False)
                stream.write(text.encode("utf-8"))
            self._hparams_wait = False

    def save(self) -> None:
        """Write the buffered rows; those that the disk refuses go on waiting."""
        if rank_zero_only.rank != 0:
            return
        if self._hparams_wait:
            self._save_hparams()
        file, refused = self.experiment, self._refused_rows
        waited = refused.cause is not None
        with refused.told(
            file.path,
            "The fit goes on; its rows of metrics wait, and each flush tries again.",
        ):
            file.save()
        if refused.cause is None:
            if waited:
                rank_zero_info(f"`{file.path}`: the rows that had to wait are written.")
        elif file.drop_oldest(_MOST_WAITING_VALUES) == file.dropped > 0:
            rank_zero_warn(
                f"More than {_MOST_WAITING_VALUES:,} values wait for `{file.path}`: "
                "from now on the oldest rows are dropped."
            )

    def finalize(self, status: str) -> None:
        """Write the buffered rows, and say how many cannot be written."""
        self.save()
        if rank_zero_only.rank != 0 or self._refused_rows.cause is None:
            return
        file = self.experiment
        lost = f"{_rows(file.waiting)} of metrics cannot be written"
        if file.dropped:
            lost += f" and {_rows(file.dropped)} have been dropped"
        rank_zero_warn(
            f"{lost}: {self._refused_rows.cause}. They are missing in `{file.path}`; as "
            "long as this program runs, `logger.save()` tries again."
        )

    def state_dict(self) -> dict[str, Any]:
        """Return how far the file has come."""
        return self.experiment.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Cut rows off that came after the checkpoint; in a new folder there are none."""
        path = self.experiment.path
        with self._refused_rows.told(path, "Rows behind the checkpoint come twice."):
            if not self.experiment.cut_back(state):
                rank_zero_warn(
                    f"`{path}` does not hold the rows of the run that is resumed: the new "
                    "ones are added behind those that are there"
                )


def _rows(number: int) -> str:
    return "1 row" if number == 1 else f"{number:,} rows"
