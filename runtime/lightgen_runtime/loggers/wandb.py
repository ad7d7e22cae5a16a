"""Metrics, hyperparameters and checkpoints to Weights & Biases, or to files for it."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from lightgen_runtime.loggers.checkpoint_files import CheckpointFiles, settings_of
from lightgen_runtime.loggers.hparams_text import as_dict, plain
from lightgen_runtime.loggers.logger import Logger, rank_zero_experiment
from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.imports import import_extra
from lightgen_runtime.utilities.rank_zero import rank_zero_only, rank_zero_warn

if TYPE_CHECKING:
    from lightgen_runtime.callbacks.model_checkpoint import ModelCheckpoint

STEP_KEY = "trainer/global_step"


class WandbLogger(Logger):
    """Log to Weights & Biases; needs `wandb`.

    The service cannot drop single rows of a run. A fit that goes on from a checkpoint in
    the same run (`id=...`, `resume="must"`) logs what came after it once more: charts show
    these values twice at their `trainer/global_step`. To avoid it, begin a new run, or
    fork the old one where the service offers it (`fork_from="<id>?_step=<n>"`).

    Args:
        name: What the service shows as the run's name.
        save_dir: Folder of the local files.
        version: The run's id, to go on with a run.
        offline: Write files only; `wandb sync` uploads them later.
        dir: The same as `save_dir`, which goes first.
        id: The same as `version`, which goes first.
        anonymous: Allow logging without an account.
        project: The project; by default `WANDB_PROJECT`, else "lightning_logs".
        log_model: Upload checkpoints as artifacts: "all" at once, True when the run ends
            (at once with `save_top_k=-1`), False never.
        experiment: A run that `wandb.init` has already made.
        prefix: Put before each metric's name, with a dash.
        checkpoint_name: Name of the artifact; by default `model-<run id>`.
        add_file_policy: "mutable" copies a checkpoint before its upload, "immutable" does
            not, and the file must then stay as it is.
        kwargs: Passed to `wandb.init`, e.g. `entity`, `group`, `tags`.

    Raises:
        MissingDependencyError: The package `wandb` is not installed.
        MisconfigurationException: `log_model` with `offline`, where nothing is uploaded.
    """

    LOGGER_JOIN_CHAR = "-"

    def __init__(
        self,
        name: str | None = None,
        save_dir: str | os.PathLike[str] | None = ".",
        version: str | None = None,
        offline: bool = False,
        dir: str | os.PathLike[str] | None = None,
        id: str | None = None,
        anonymous: bool | None = None,
        project: str | None = None,
        log_model: Literal["all"] | bool = False,
        experiment: Any = None,
        prefix: str = "",
        checkpoint_name: str | None = None,
        add_file_policy: Literal["mutable", "immutable"] = "mutable",
        **kwargs: Any,
    ) -> None:
        _import_wandb()
        if offline and log_model:
            raise MisconfigurationException(
                f"`WandbLogger(offline=True, log_model={log_model!r})`: checkpoints are "
                "uploaded online only. Leave out one of the two."
            )
        folder = save_dir if save_dir is not None else dir
        self._wandb_init: dict[str, Any] = {
            "name": name,
            "project": project or os.environ.get("WANDB_PROJECT", "lightning_logs"),
            "dir": None if folder is None else os.fspath(folder),
            "id": version or id,
            "resume": "allow",
            **({"anonymous": "allow"} if anonymous else {}),
            **({"mode": "offline"} if offline else {}),
            **kwargs,
        }
        self._log_model = log_model
        self._prefix = prefix
        self._experiment = experiment
        self._checkpoint_name = checkpoint_name
        self._add_file_policy = add_file_policy
        self._files = CheckpointFiles()
        self._at_end: dict[int, ModelCheckpoint] = {}

    @property
    def name(self) -> str | None:
        """The project."""
        name: str | None = self._wandb_init["project"]
        return name

    @property
    def version(self) -> str | None:
        """The run's id, once there is one."""
        known = self._wandb_init["id"] if self._experiment is None else None
        version: str | None = known if known else getattr(self._experiment, "id", None)
        return version

    @property
    def save_dir(self) -> str | None:
        """The folder of the local files."""
        folder: str | None = self._wandb_init["dir"]
        return folder

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run, for tables, images and whatever else `wandb` takes."""
        if self._experiment is not None:
            return self._experiment
        wandb = _import_wandb()
        if wandb.run is not None:
            rank_zero_warn(
                "`WandbLogger` goes on with the `wandb` run that is already open; call "
                "`wandb.finish()` first to begin a new one"
            )
            self._experiment = wandb.run
            return self._experiment
        if self.save_dir is not None:
            Path(self.save_dir).mkdir(parents=True, exist_ok=True)
        self._experiment = wandb.init(**self._wandb_init)
        if self._wandb_init.get("sync_tensorboard"):
            self._experiment.define_metric("*", step_metric="global_step")
        else:
            self._experiment.define_metric(STEP_KEY)
            self._experiment.define_metric("*", step_metric=STEP_KEY, step_sync=True)
        return self._experiment

    def watch(
        self,
        model: nn.Module,
        log: Literal["gradients", "parameters", "all"] | None = "gradients",
        log_freq: int = 100,
        log_graph: bool = True,
    ) -> None:
        """Log gradients or parameters of `model` every `log_freq` batches."""
        self.experiment.watch(model, log=log, log_freq=log_freq, log_graph=log_graph)

    @rank_zero_only
    def log_hyperparams(
        self, params: Mapping[str, Any] | Namespace | None = None
    ) -> None:
        """Add to the run's config; what is not plain data as its text."""
        self.experiment.config.update(plain(as_dict(params)), allow_val_change=True)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log at `trainer/global_step`; several calls may share a step."""
        prefix = f"{self._prefix}{self.LOGGER_JOIN_CHAR}" if self._prefix else ""
        row = {f"{prefix}{name}": value for name, value in metrics.items()}
        if step is not None and not self._wandb_init.get("sync_tensorboard"):
            row[STEP_KEY] = step
        self.experiment.log(row)

    @rank_zero_only
    def log_table(
        self,
        key: str,
        columns: list[str] | None = None,
        data: list[list[Any]] | None = None,
        dataframe: Any = None,
        step: int | None = None,
    ) -> None:
        """Log a table, given by columns and rows or by a dataframe."""
        table = _import_wandb().Table(columns=columns, data=data, dataframe=dataframe)
        self.log_metrics({key: table}, step)

    @rank_zero_only
    def log_text(
        self,
        key: str,
        columns: list[str] | None = None,
        data: list[list[str]] | None = None,
        dataframe: Any = None,
        step: int | None = None,
    ) -> None:
        """Log text as a table; arguments as in `log_table`."""
        self.log_table(key, columns, data, dataframe, step)

    @rank_zero_only
    def log_image(
        self, key: str, images: list[Any], step: int | None = None, **kwargs: Any
    ) -> None:
        """Log images; each further argument is a list with a value for each image."""
        self._log_media("Image", key, images, step, kwargs)

    @rank_zero_only
    def log_audio(
        self, key: str, audios: list[Any], step: int | None = None, **kwargs: Any
    ) -> None:
        """Log sounds; each further argument is a list with a value for each sound."""
        self._log_media("Audio", key, audios, step, kwargs)

    @rank_zero_only
    def log_video(
        self, key: str, videos: list[Any], step: int | None = None, **kwargs: Any
    ) -> None:
        """Log videos; each further argument is a list with a value for each video."""
        self._log_media("Video", key, videos, step, kwargs)

    def _log_media(
        self,
        kind: str,
        key: str,
        items: list[Any],
        step: int | None,
        options: Mapping[str, Sequence[Any]],
    ) -> None:
        if not isinstance(items, list):
            raise TypeError(
                f"`WandbLogger.log_{kind.lower()}({key!r}, ...)` got "
                f"{type(items).__name__}; a list is needed"
            )
        for name, values in options.items():
            if len(values) != len(items):
                raise ValueError(
                    f"`WandbLogger.log_{kind.lower()}({key!r}, ...)` got {len(items)} "
                    f"items and {len(values)} values for {name!r}; there must be as many"
                )
        make = getattr(_import_wandb(), kind)
        media = [
            make(item, **{name: values[number] for name, values in options.items()})
            for number, item in enumerate(items)
        ]
        self.log_metrics({key: media}, step)

    def use_artifact(self, artifact: str, artifact_type: str | None = None) -> Any:
        """Note that this run uses an artifact, and return it."""
        return self.experiment.use_artifact(artifact, type=artifact_type)

    @staticmethod
    @rank_zero_only
    def download_artifact(
        artifact: str,
        save_dir: str | os.PathLike[str] | None = None,
        artifact_type: str | None = None,
        use_artifact: bool = True,
    ) -> str:
        """Download an artifact.

        Args:
            artifact: Its path on the service.
            save_dir: Where to.
            artifact_type: Its type.
            use_artifact: Note that the open run, if any, uses it.

        Returns:
            The folder that holds it now.
        """
        wandb = _import_wandb()
        if wandb.run is not None and use_artifact:
            found = wandb.run.use_artifact(artifact)
        else:
            found = wandb.Api().artifact(artifact, type=artifact_type)
        root = None if save_dir is None else os.fspath(save_dir)
        return str(found.download(root=root))

    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        """Upload at once or remember for the end, as `log_model` says."""
        everything = checkpoint_callback.save_top_k == -1
        if self._log_model == "all" or (self._log_model is True and everything):
            self._upload(checkpoint_callback)
        elif self._log_model is True:
            self._at_end[id(checkpoint_callback)] = checkpoint_callback

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Upload the checkpoints of a run that went well; the run stays open."""
        if status == "success" and self._experiment is not None:
            for callback in self._at_end.values():
                self._upload(callback)

    def _upload(self, callback: ModelCheckpoint) -> None:
        wandb = _import_wandb()
        name = self._checkpoint_name or f"model-{self.experiment.id}"
        for file in self._files.take_new(callback):
            metadata = {
                "score": file.score,
                "original_filename": Path(file.path).name,
                type(callback).__name__: settings_of(callback),
            }
            artifact = wandb.Artifact(name=name, type="model", metadata=metadata)
            artifact.add_file(
                file.path, name="model.ckpt", policy=self._add_file_policy
            )
            self.experiment.log_artifact(artifact, aliases=file.aliases)

    def __getstate__(self) -> dict[str, Any]:
        # The same run goes on wherever the logger is unpickled.
        init = {**self._wandb_init, "id": self.version}
        return {**self.__dict__, "_experiment": None, "_wandb_init": init}


def _import_wandb() -> Any:
    return import_extra("wandb", install="pip install wandb", used_by="`WandbLogger`")
