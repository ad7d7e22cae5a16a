"""Metrics, hyperparameters and checkpoints to an MLflow store, local or remote."""

from __future__ import annotations

import os
import re
import tempfile
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from lightgen_runtime.loggers.checkpoint_files import CheckpointFiles, settings_of
from lightgen_runtime.loggers.hparams_text import as_dict, flattened
from lightgen_runtime.loggers.logger import Logger, rank_zero_experiment
from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.imports import import_extra
from lightgen_runtime.utilities.rank_zero import rank_zero_only, rank_zero_warn

if TYPE_CHECKING:
    from lightgen_runtime.callbacks.model_checkpoint import ModelCheckpoint

LOCAL_FILE_URI_PREFIX = "file:"
# Source: MLflow's limits of a parameter's length (the lowest among its stores), and of
# parameters in one call.
MAX_PARAM_LENGTH = 250
MAX_PARAMS = 100
_RUN_NAME_TAG = "mlflow.runName"
_STATUS = {"success": "FINISHED", "finished": "FINISHED", "failed": "FAILED"}


class MLFlowLogger(Logger):
    """Log to MLflow; needs `mlflow` or `mlflow-skinny`.

    MLflow cannot drop values of a run. A fit that goes on from a checkpoint in the same
    run (`run_id=...`) logs what came after it once more: a metric's history has those
    values twice, at the same step, and charts draw them over each other. To avoid it,
    begin a new run.

    Args:
        experiment_name: The experiment, made if there is none of that name.
        run_name: What MLflow shows as the run's name.
        tracking_uri: The store: a server, `sqlite:///mlflow.db`, or `file:<folder>`; by
            default `MLFLOW_TRACKING_URI`, else `file:<save_dir>`.
        tags: Tags of the run.
        save_dir: Folder of the store if there is no `tracking_uri`.
        log_model: Store checkpoints as artifacts: "all" at once, True when the run ends
            (at once with `save_top_k=-1`), False never.
        prefix: Put before each metric's name, with a dash.
        artifact_location: Where a new experiment keeps artifacts; the store's choice by
            default.
        run_id: A run to go on with, instead of a new one.
        synchronous: Whether each call waits until MLflow has stored what it got.

    Raises:
        MissingDependencyError: The package `mlflow` is not installed.
        MisconfigurationException: MLflow does not open the store.
    """

    LOGGER_JOIN_CHAR = "-"

    def __init__(
        self,
        experiment_name: str = "lightning_logs",
        run_name: str | None = None,
        tracking_uri: str | None = None,
        tags: dict[str, Any] | None = None,
        save_dir: str | os.PathLike[str] | None = "./mlruns",
        log_model: Literal["all"] | bool = False,
        prefix: str = "",
        artifact_location: str | None = None,
        run_id: str | None = None,
        synchronous: bool | None = None,
    ) -> None:
        default = f"{LOCAL_FILE_URI_PREFIX}{os.fspath(save_dir or '')}"
        uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or default
        self._tracking_uri = uri
        self._experiment_name = experiment_name
        self._run_name = run_name
        self.tags = dict(tags or {})
        self._log_model = log_model
        self._prefix = prefix
        self._artifact_location = artifact_location
        self._run_id = run_id
        self._experiment_id: str | None = None
        self._how = {} if synchronous is None else {"synchronous": synchronous}
        self._initialized = False
        self._files = CheckpointFiles()
        self._at_end: dict[int, ModelCheckpoint] = {}
        self._client = _open_store(uri)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The `MlflowClient`; the run begins with the first use."""
        if not self._initialized:
            self._begin()
            self._initialized = True
        return self._client

    def _begin(self) -> None:
        if self._run_id is not None:
            self._experiment_id = self._client.get_run(self._run_id).info.experiment_id
            return
        found = self._client.get_experiment_by_name(self._experiment_name)
        if found is not None and found.lifecycle_stage != "deleted":
            self._experiment_id = found.experiment_id
        else:
            self._experiment_id = self._client.create_experiment(
                self._experiment_name, artifact_location=self._artifact_location
            )
        if self._run_name is not None:
            if self.tags.get(_RUN_NAME_TAG, self._run_name) != self._run_name:
                rank_zero_warn(
                    f"`MLFlowLogger(run_name={self._run_name!r})` goes before the tag "
                    f"{_RUN_NAME_TAG}={self.tags[_RUN_NAME_TAG]!r}"
                )
            self.tags[_RUN_NAME_TAG] = self._run_name
        context = _import_mlflow("mlflow.tracking.context.registry")
        run = self._client.create_run(
            self._experiment_id, tags=context.resolve_tags(self.tags)
        )
        self._run_id = run.info.run_id

    @property
    def run_id(self) -> str | None:
        """The run's id; the run begins with the first use."""
        _ = self.experiment
        return self._run_id

    @property
    def experiment_id(self) -> str | None:
        """The experiment's id; the run begins with the first use."""
        _ = self.experiment
        return self._experiment_id

    @property
    def name(self) -> str | None:
        """The experiment's id."""
        return self.experiment_id

    @property
    def version(self) -> str | None:
        """The run's id."""
        return self.run_id

    @property
    def save_dir(self) -> str | None:
        """The folder of the store, if it is one of files."""
        if not self._tracking_uri.startswith(LOCAL_FILE_URI_PREFIX):
            return None
        return self._tracking_uri.removeprefix(LOCAL_FILE_URI_PREFIX)

    @rank_zero_only
    def log_hyperparams(
        self, params: Mapping[str, Any] | Namespace | None = None
    ) -> None:
        """Record hyperparameters by path, as text of at most 250 characters."""
        entities = _import_mlflow("mlflow.entities")
        entries = [
            entities.Param(key, str(value)[:MAX_PARAM_LENGTH])
            for key, value in flattened(as_dict(params)).items()
        ]
        for start in range(0, len(entries), MAX_PARAMS):
            part = entries[start : start + MAX_PARAMS]
            self.experiment.log_batch(self.run_id, params=part, **self._how)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Record metrics; characters that MLflow does not take are left out of names."""
        entities = _import_mlflow("mlflow.entities")
        milliseconds = int(time() * 1000)
        entries = []
        for name, value in metrics.items():
            if isinstance(value, str):
                rank_zero_warn(
                    f"`MLFlowLogger` drops the metric {name}={value!r}: MLflow takes "
                    "numbers only"
                )
                continue
            key = (
                f"{self._prefix}{self.LOGGER_JOIN_CHAR}{name}" if self._prefix else name
            )
            taken = re.sub(r"[^a-zA-Z0-9_/. -]+", "", key)
            if taken != key:
                rank_zero_warn(
                    f"MLflow takes letters, digits and `_/. -` in a metric's name: "
                    f"{key!r} is recorded as {taken!r}",
                    RuntimeWarning,
                )
            number = value.item() if isinstance(value, Tensor) else value
            entries.append(entities.Metric(taken, number, milliseconds, step or 0))
        self.experiment.log_batch(self.run_id, metrics=entries, **self._how)

    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        """Store at once or remember for the end, as `log_model` says."""
        everything = checkpoint_callback.save_top_k == -1
        if self._log_model == "all" or (self._log_model is True and everything):
            self._upload(checkpoint_callback)
        elif self._log_model is True:
            self._at_end[id(checkpoint_callback)] = checkpoint_callback

    @rank_zero_only
    def finalize(self, status: str = "success") -> None:
        """Store the checkpoints that wait, and end the run as `status` says."""
        if not self._initialized and not self._at_end:
            return  # nothing was logged, so there is no run to end
        for callback in self._at_end.values():
            self._upload(callback)
        if self.experiment.get_run(self.run_id):
            self.experiment.set_terminated(self.run_id, _STATUS.get(status, status))

    def _upload(self, callback: ModelCheckpoint) -> None:
        import yaml

        for file in self._files.take_new(callback):
            artifact = Path(file.path).stem
            self.experiment.log_artifact(self.run_id, file.path, artifact)
            metadata = {
                "score": file.score,
                "original_filename": Path(file.path).name,
                "Checkpoint": settings_of(callback),
            }
            with tempfile.TemporaryDirectory() as folder:
                text = yaml.safe_dump(metadata)
                Path(folder, "metadata.yaml").write_text(text, encoding="utf-8")
                Path(folder, "aliases.txt").write_text(str(file.aliases), "utf-8")
                self.experiment.log_artifacts(self.run_id, folder, artifact)


def _import_mlflow(module: str) -> Any:
    return import_extra(module, install="pip install mlflow", used_by="`MLFlowLogger`")


def _open_store(uri: str) -> Any:
    tracking = _import_mlflow("mlflow.tracking")
    exceptions = _import_mlflow("mlflow.exceptions")
    try:
        return tracking.MlflowClient(uri)
    except exceptions.MlflowException as error:
        raise MisconfigurationException(
            f"`MLFlowLogger`: MLflow does not open {uri!r}. Recent versions refuse "
            'folders as stores: pass tracking_uri="sqlite:///mlflow.db" (needs `pip '
            "install mlflow`), or set MLFLOW_ALLOW_FILE_STORE=true in the environment. "
            f"MLflow says: {error}"
        ) from error
