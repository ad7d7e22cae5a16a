"""Metrics as a CSV file and hyperparameters as YAML: no service, no extra package."""

from __future__ import annotations

import csv
import io
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from torch import Tensor

from lightgen_runtime.loggers.hparams_text import as_dict, plain
from lightgen_runtime.loggers.logger import Logger
from lightgen_runtime.loggers.version_folder import claim_version
from lightgen_runtime.utilities.atomic_write import atomic_write
from lightgen_runtime.utilities.rank_zero import rank_zero_only, rank_zero_warn

METRICS_FILE = "metrics.csv"
HPARAMS_FILE = "hparams.yaml"


class MetricsFile:
    """Append rows to one `metrics.csv`; whole rows or none ever reach the file.

    Columns are sorted. A metric that appears late gets its column by one atomic rewrite
    of the file; rows that are there already stay, also those of an earlier run. Only a
    run that is resumed drops what came after its checkpoint.
    """

    def __init__(self, log_dir: str | Path) -> None:
        self.path = Path(log_dir) / METRICS_FILE
        self._rows: list[dict[str, float | int]] = []
        self._columns: list[str] | None = None
        self._next_step = 0
        self._count = 0
        self._digest = sha256()

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
        """Write the buffered rows to the file."""
        if not self._rows:
            return
        columns = self._adopted_columns()
        names = {name for row in self._rows for name in row}
        if not names <= set(columns):
            self._widen(sorted(names | set(columns)))
        written = _as_csv(self._rows, self._adopted_columns())
        self._append(written)
        self._count_rows(csv.reader(written.decode("utf-8").splitlines()))
        self._rows.clear()

    def state_dict(self) -> dict[str, Any]:
        """Return how many rows the file has, and what tells them from other runs'."""
        columns = self._adopted_columns()
        return {
            "rows": self._count,
            "digest": self._digest.hexdigest(),
            "columns": columns,
            "path": str(self.path.resolve()),
        }

    def cut_back(self, state: Mapping[str, Any]) -> bool:
        """Drop the rows that came after those of a state; tell if it has those at all."""
        if not self.path.exists():
            return True
        self._adopted_columns()
        with self.path.open(encoding="utf-8", newline="") as stream:
            existing = list(csv.DictReader(stream))[: state["rows"]]
        columns = list(state["columns"])
        rows = [{name: row.get(name) or "" for name in columns} for row in existing]
        former = MetricsFile(self.path.parent)
        former._columns = columns
        former._count_rows(row.values() for row in rows)
        same_place = bool(rows) or state["path"] == str(self.path.resolve())
        if former.state_dict()["digest"] != state["digest"] or not same_place:
            return False
        if former._count < self._count or columns != self._columns:
            header = dict(zip(columns, columns, strict=True))
            with atomic_write(self.path) as replacement:
                if header:
                    replacement.write(_as_csv([header, *rows], columns))
        vars(self).update(vars(former), path=self.path)
        return True

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
        with self.path.open("ab", buffering=0) as stream:
            end = stream.tell()
            try:
                written = stream.write(lines)
                if written != len(lines):
                    raise OSError(f"`{self.path}`: only part of the rows was written")
            except OSError:
                stream.truncate(end)
                raise


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
        self._hparams: dict[str, Any] = {}

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
        import yaml

        self._hparams.update(as_dict(params))
        with atomic_write(Path(self.log_dir) / HPARAMS_FILE) as stream:
            text = yaml.safe_dump(plain(self._hparams), sort_keys=False)
            stream.write(text.encode("utf-8"))

    def save(self) -> None:
        """Write the buffered rows."""
        if rank_zero_only.rank == 0:
            self.experiment.save()

    def state_dict(self) -> dict[str, Any]:
        """Return how far the file has come."""
        return self.experiment.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Cut rows off that came after the checkpoint; in a new folder there are none."""
        if not self.experiment.cut_back(state):
            rank_zero_warn(
                f"`{self.experiment.path}` does not hold the rows of the run that is "
                "resumed: the new ones are added behind those that are there"
            )
