"""What the loggers of both packages send to W&B and MLflow."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy
import pytest
import torch
import wandb
from mlflow.tracking import MlflowClient
from recording import callbacks_of, quiet_trainer
from test_checkpoint_files import FALLING, Run, data, scripted
from test_loggers import module, trainer

pytestmark = pytest.mark.filterwarnings("ignore")


def shown(value: Any) -> Any:
    """Return what was sent as text or numbers that two packages can have in common."""
    if isinstance(value, dict):
        return {key: shown(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [shown(item) for item in value]
    if isinstance(value, wandb.Table):
        return ["table", value.columns, value.data]
    if isinstance(value, wandb.Image):
        return ["image", value._caption, value._width, value._height]
    if isinstance(value, torch.nn.Module):
        return type(value).__name__
    if isinstance(value, wandb.Artifact):
        return [value.type, sorted(value.manifest.entries), value.metadata]
    return value


def sent(run: MagicMock) -> list[Any]:
    return [
        [name, shown(args), shown(kwargs)]
        for name, args, kwargs in run.mock_calls
        if name
    ]


def run_object() -> MagicMock:
    return MagicMock(spec=wandb.Run, id="abc", config=MagicMock(), dir="files")


@pytest.mark.parametrize(
    "arguments", [{}, {"prefix": "pre"}, {"sync_tensorboard": True}], ids=str
)
def test_everything_that_wandb_is_sent(
    arguments: dict[str, Any], same_with_loggers: Any
) -> None:
    picture = numpy.zeros((4, 6, 3), dtype=numpy.uint8)

    def scenario(loggers: Any, root: Path) -> Any:
        run = run_object()
        logger = loggers.WandbLogger(experiment=run, save_dir=root, **arguments)
        logger.log_metrics({"loss": 1.5, "acc": 2}, step=3)
        logger.log_metrics({"loss": 1.5})
        logger.log_hyperparams({"rate": 0.1, "nested": {"width": 3}, "none": None})
        logger.log_hyperparams(Namespace(depth=2))
        logger.log_table("t", columns=["a", "b"], data=[[1, 2], [3, 4]], step=4)
        logger.log_text("x", columns=["in", "out"], data=[["a", "b"]])
        logger.log_image("i", images=[picture, picture], caption=["one", "two"], step=5)
        logger.watch(torch.nn.Linear(1, 1), log="all", log_freq=7, log_graph=False)
        logger.use_artifact("some/model:v1", artifact_type="model")
        with pytest.raises(TypeError):
            logger.log_image("i", images=picture)
        with pytest.raises(ValueError, match="2"):
            logger.log_image("i", images=[picture, picture], caption=["one"])
        logger.finalize("success")
        attributes = logger.name, logger.version, Path(logger.save_dir) == root
        return sent(run), attributes, logger.root_dir, logger.log_dir

    same_with_loggers(scenario)


@pytest.mark.parametrize("log_model", [False, True, "all"])
@pytest.mark.parametrize("keep", [1, -1])
def test_checkpoints_sent_to_wandb(
    log_model: Any, keep: int, same_with_loggers: Any
) -> None:
    def scenario(loggers: Any, root: Path) -> Any:
        namespace = loggers.__name__.partition(".")[0]
        run = run_object()
        logger = loggers.WandbLogger(experiment=run, log_model=log_model, save_dir=root)
        arguments = {"monitor": "val/loss", "filename": "{epoch}", "save_top_k": keep}
        Run(namespace, root, arguments, FALLING, logger=logger)
        calls = [call for call in sent(run) if call[0] == "log_artifact"]
        for _, _, kwargs in calls:
            kwargs["aliases"].sort()
        return calls

    same_with_loggers(scenario)


@pytest.fixture
def _store_of_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.mark.usefixtures("_store_of_files")
@pytest.mark.parametrize("prefix", ["", "pre"])
@pytest.mark.parametrize("log_model", [False, True])
def test_run_in_mlflow(prefix: str, log_model: bool, same_with_loggers: Any) -> None:
    def scenario(loggers: Any, root: Path) -> Any:
        logger = loggers.MLFlowLogger(
            "experiment",
            run_name="run",
            save_dir=str(root / "store"),
            tags={"who": "me"},
            prefix=prefix,
            log_model=log_model,
        )
        keep = callbacks_of(loggers.__name__.partition(".")[0]).ModelCheckpoint(
            root / "files", "{epoch}", monitor="val"
        )
        fit = trainer(loggers, logger, callbacks=[keep], enable_checkpointing=True)
        fit.fit(module(loggers), data(), data(4))
        client = MlflowClient(f"file:{root / 'store'}")
        run = client.get_run(logger.run_id)
        points = {
            key: [
                (p.step, p.value) for p in client.get_metric_history(logger.run_id, key)
            ]
            for key in sorted(run.data.metrics)
        }
        tags = {
            k: v for k, v in run.data.tags.items() if k in ("who", "mlflow.runName")
        }
        artifacts = sorted(a.path for a in client.list_artifacts(logger.run_id))
        if artifacts:
            inside = client.list_artifacts(logger.run_id, artifacts[0])
            artifacts += sorted(a.path for a in inside)
        return (
            *(points, run.data.params, tags, run.info.status, artifacts),
            client.get_experiment(logger.experiment_id).name,
            Path(logger.save_dir) == root / "store",
        )

    same_with_loggers(scenario)


@pytest.mark.usefixtures("_store_of_files")
def test_failed_run_in_mlflow(same_with_loggers: Any) -> None:
    def scenario(loggers: Any, root: Path) -> Any:
        namespace = loggers.__name__.partition(".")[0]
        logger = loggers.MLFlowLogger(tracking_uri=f"file:{root / 'store'}")
        broken = scripted(namespace, FALLING)
        broken.on_before_backward = lambda loss: 1 // (2 - broken.global_step)
        fit = quiet_trainer(namespace, logger=logger, log_every_n_steps=1)
        with pytest.raises(ZeroDivisionError):
            fit.fit(broken, data())
        client = MlflowClient(f"file:{root / 'store'}")
        return client.get_run(logger.run_id).info.status

    assert same_with_loggers(scenario) == "FAILED"
