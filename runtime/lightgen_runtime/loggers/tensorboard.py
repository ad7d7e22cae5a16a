"""Metrics, hyperparameters and the graph as TensorBoard's event files."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from lightgen_runtime.loggers.event_file import EventFile
from lightgen_runtime.loggers.hparams_text import as_dict, flattened, plain
from lightgen_runtime.loggers.logger import Logger, rank_zero_experiment
from lightgen_runtime.loggers.version_folder import claim_version
from lightgen_runtime.utilities.atomic_write import atomic_write
from lightgen_runtime.utilities.imports import import_extra
from lightgen_runtime.utilities.move_data import move_data_to_device
from lightgen_runtime.utilities.rank_zero import (
    rank_zero_info,
    rank_zero_only,
    rank_zero_warn,
)
from lightgen_runtime.utilities.refused_writes import RefusedWrites

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter


class TensorBoardLogger(Logger):
    """Write event files to `<save_dir>/<name>/version_<n>`; needs `tensorboard`.

    Args:
        save_dir: Folder of all experiments.
        name: Folder of this experiment in it; `None` or empty for none.
        version: An integer `n` for `version_<n>`, a string for a folder of that very
            name, `None` for the first free number.
        log_graph: Record the model's graph, traced with its `example_input_array`.
        default_hp_metric: Record a placeholder `hp_metric` with hyperparameters that come
            without a metric; TensorBoard shows none without one.
        prefix: Put before each metric's name, with a dash.
        sub_dir: Folder in the version's folder that the files go to.
        kwargs: Passed to `torch.utils.tensorboard.SummaryWriter`, e.g. `flush_secs`.

    Raises:
        MissingDependencyError: The package `tensorboard` is not installed.

    Compat: A disk that fills up during a fit, is gone or not writable is a warning and
    ends nothing. Records wait for it, also in checkpoints, and are tried again at each
    flush; beyond 10 MB the oldest are dropped. The end of the fit says what is lost.
    """

    LOGGER_JOIN_CHAR = "-"
    NAME_HPARAMS_FILE = "hparams.yaml"

    def __init__(
        self,
        save_dir: str | os.PathLike[str],
        name: str | None = "lightning_logs",
        version: int | str | None = None,
        log_graph: bool = False,
        default_hp_metric: bool = True,
        prefix: str = "",
        sub_dir: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> None:
        import_extra(
            "tensorboard",
            install="pip install tensorboard",
            used_by="`TensorBoardLogger`",
        )
        self._save_dir = os.fspath(save_dir)
        self._name = name or ""
        self._version = version
        self._log_graph = log_graph
        self._default_hp_metric = default_hp_metric
        self._prefix = prefix
        self._sub_dir = None if sub_dir is None else os.fspath(sub_dir)
        self._kwargs = kwargs
        self._experiment: SummaryWriter | None = None
        self._files: list[EventFile] = []
        self._refused = RefusedWrites()
        self._refused_hparams = RefusedWrites()
        self._has_hparams_file = False
        self.hparams: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """The experiment's folder below `save_dir`; may be empty."""
        return self._name

    @property
    def version(self) -> int | str:
        """The run's number or name; the first use without one claims a folder."""
        if self._version is None:
            self._version = claim_version(Path(_expanded(self.root_dir)))
        return self._version

    def adopt_version(self, version: int | str | None) -> None:
        """See `Logger.adopt_version`."""
        self._version = version

    @property
    def save_dir(self) -> str:
        """The folder of all experiments."""
        return self._save_dir

    @property
    def sub_dir(self) -> str | None:
        """The folder in the version's folder, if any."""
        return self._sub_dir

    @property
    def root_dir(self) -> str:
        """The folder of all versions."""
        return str(Path(self._save_dir) / self._name)

    @property
    def log_dir(self) -> str:
        """The folder of this run."""
        version = self.version
        folder = f"version_{version}" if isinstance(version, int) else version
        return _expanded(str(Path(self.root_dir) / folder / (self._sub_dir or "")))

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The `SummaryWriter`, for images, histograms and whatever else it takes."""
        if self._experiment is None:
            from torch.utils.tensorboard.writer import SummaryWriter

            writer: Any = SummaryWriter(log_dir=self.log_dir, **self._kwargs)
            self._watch(writer._get_file_writer())
            self._experiment = writer
        return self._experiment

    def _watch(self, file_writer: Any) -> None:
        file = EventFile.below(file_writer.event_writer)
        if file is not None:
            self._files.append(file)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Record each metric as a scalar, a mapping as scalars of one chart.

        Raises:
            OSError: The event file cannot be begun.
            ValueError: A value is neither a number, nor a 1-element tensor, nor a
                mapping of such.
        """
        writer = self.experiment
        for name, value in metrics.items():
            key = (
                f"{self._prefix}{self.LOGGER_JOIN_CHAR}{name}" if self._prefix else name
            )
            if isinstance(value, Mapping):
                self._log_together(key, value, step)
                continue
            try:
                number = value.item() if isinstance(value, Tensor) else value
                writer.add_scalar(key, number, step)
            except Exception as error:
                raise ValueError(
                    f"`TensorBoardLogger` cannot record {name!r}={value!r}: a number, a "
                    "1-element tensor or a mapping of such is needed"
                ) from error

    def _log_together(
        self, key: str, values: Mapping[str, Any], step: int | None
    ) -> None:
        """Record scalars of one chart, each in an event file of its own."""
        writer = self.experiment
        known = set(writer.all_writers)
        writer.add_scalars(key, values, step)
        for name in writer.all_writers.keys() - known:
            self._watch(writer.all_writers[name])

    @rank_zero_only
    def log_hyperparams(
        self,
        params: Mapping[str, Any] | Namespace | None = None,
        metrics: Mapping[str, Any] | float | None = None,
        step: int | None = None,
    ) -> None:
        """Record hyperparameters, for TensorBoard and for `hparams.yaml`.

        Args:
            params: Nested as they like; TensorBoard gets them by path.
            metrics: What the runs are compared by; a number is named `hp_metric`.
            step: Where on the axis `metrics` stand.
        """
        given = as_dict(params)
        self.hparams.update(given)
        if metrics is None:
            metrics = {"hp_metric": -1} if self._default_hp_metric else {}
        elif not isinstance(metrics, Mapping):
            metrics = {"hp_metric": metrics}
        if not metrics:
            return
        from torch.utils.tensorboard.summary import hparams

        self.log_metrics(metrics, step)
        # `SummaryWriter.add_hparams` would write them to a folder, hence a run, of its own.
        writer = self.experiment._get_file_writer()
        for summary in hparams(flattened(given), dict(metrics)):  # type: ignore[no-untyped-call]
            writer.add_summary(summary, step)

    @rank_zero_only
    def log_graph(self, model: nn.Module, input_array: Any = None) -> None:
        """Record the model's graph if the logger was made with `log_graph=True`.

        Args:
            model: What to trace.
            input_array: A tensor, or a tuple of positional arguments of `forward`; by
                default the model's `example_input_array`.
        """
        if not self._log_graph:
            return
        example = input_array
        if example is None:
            example = getattr(model, "example_input_array", None)
        if not isinstance(example, Tensor | tuple):
            rank_zero_warn(
                "`TensorBoardLogger(log_graph=True)` records no graph: the model's "
                f"`example_input_array` is {type(example).__name__}; set it to a tensor, "
                "or to a tuple of the positional arguments of `forward`"
            )
            return
        device = next((p.device for p in model.parameters()), None)
        if device is not None:
            example = move_data_to_device(example, device)
        self.experiment.add_graph(model, example)

    @rank_zero_only
    def save(self) -> None:
        """Write what is buffered, and the hyperparameters beside it once."""
        writer, waited = self.experiment, self._refused.cause is not None
        with self._refused.told(
            self.log_dir,
            "The fit goes on; what is logged waits, and each flush tries again.",
        ):
            writer.flush()
            for file in self._files:
                if file.refused is not None:
                    raise file.refused
        if waited and self._refused.cause is None:
            rank_zero_info(f"`{self.log_dir}`: what had to wait is written.")
        path = Path(self.log_dir) / self.NAME_HPARAMS_FILE
        # Known, and not looked up: with its disk the folder goes, and would be made anew.
        self._has_hparams_file = self._has_hparams_file or path.exists()
        if self._has_hparams_file:
            return
        import yaml

        with (
            self._refused_hparams.told(path, "It is tried again at each flush."),
            atomic_write(path) as stream,
        ):
            text = yaml.safe_dump(plain(self.hparams), sort_keys=False)
            stream.write(text.encode("utf-8"))
        self._has_hparams_file = self._refused_hparams.cause is None

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what is buffered and close the file; say what cannot be written."""
        if self._experiment is None:
            return
        self.save()
        self._experiment.close()
        lost = sum(file.waiting + file.dropped for file in self._files)
        if lost:
            rank_zero_warn(
                f"{lost:,} records of TensorBoard cannot be written and are lost: "
                f"{self._refused.cause}. They are missing in `{self.log_dir}`."
            )
        self._experiment = None  # a closed one would begin a file that nobody watches
        self._files.clear()

    def state_dict(self) -> dict[str, Any]:
        """Return how long each event file is, and what waits for the disk."""
        folder = Path(self.log_dir)
        files = {name: size for name, (_, size) in _events(folder).items()}
        waiting = {}
        for file in self._files:
            name = Path(file.path).relative_to(folder).as_posix()
            files[name] = file.size
            if file.waiting:
                waiting[name] = file.waiting_bytes()
        return {"files": files, **({"waiting": waiting} if waiting else {})}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Cut off event files what came after the checkpoint.

        `SummaryWriter(purge_step=...)` would also hide what came before it at the same
        step, and keep what came after it at an earlier one, such as a validation's.
        """
        files: dict[str, int] = state["files"]
        if self._experiment is not None:
            self._experiment.close()
            self._experiment = None
            self._files.clear()
        found = _events(Path(self.log_dir))
        # Their names tell the process and its machine, so these are of the same run.
        if not files.keys() & found.keys():
            return
        for name, (path, size) in found.items():
            if name not in files:
                path.unlink()
            elif size > files[name]:
                os.truncate(path, files[name])
        for name, records in state.get("waiting", {}).items():
            if name in found:
                path = found[name][0]
                with (
                    self._refused.told(path, "It lacks what had to wait."),
                    path.open("ab") as stream,
                ):
                    stream.write(records)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_experiment": None, "_files": []}


def _expanded(folder: str) -> str:
    return os.path.expandvars(str(Path(folder).expanduser()))


def _events(folder: Path) -> dict[str, tuple[Path, int]]:
    """Return the event files below a folder, with their lengths in bytes."""
    return {
        path.relative_to(folder).as_posix(): (path, path.stat().st_size)
        for path in sorted(folder.rglob("events.out.tfevents.*"))
    }
