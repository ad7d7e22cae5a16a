"""What `MLFlowLogger` stores, read back from a store of files with MLflow's own client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from mlflow.tracking import MlflowClient
from small_runs import Small, fitted, quiet
from torch.utils.data import DataLoader

from lightgen_runtime.callbacks import ModelCheckpoint
from lightgen_runtime.loggers import MLFlowLogger
from lightgen_runtime.utilities.exceptions import (
    MisconfigurationException,
    MissingDependencyError,
)


@pytest.fixture(autouse=True)
def _files_as_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"file:{tmp_path / 'store'}"


def stored(logger: MLFlowLogger, uri: str) -> Any:
    return MlflowClient(uri).get_run(str(logger.run_id))


def points(logger: MLFlowLogger, uri: str, key: str) -> list[tuple[int, float]]:
    history = MlflowClient(uri).get_metric_history(str(logger.run_id), key)
    return [(point.step, point.value) for point in history]


def test_fit_stores_the_logged_metrics_and_ends_the_run(uri: str) -> None:
    logger = MLFlowLogger(tracking_uri=uri, run_name="first", tags={"who": "me"})
    fitted(Small(), logger=logger, max_epochs=2)

    assert [step for step, _ in points(logger, uri, "val_loss")] == [3, 7]
    assert points(logger, uri, "epoch") == [(3, 0.0), (7, 1.0)]
    run = stored(logger, uri)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "first"
    assert run.data.tags["who"] == "me"
    assert (logger.name, logger.version) == (run.info.experiment_id, run.info.run_id)
    experiment = MlflowClient(uri).get_experiment(run.info.experiment_id)
    assert experiment.name == "lightning_logs"


def test_failed_fit_ends_the_run_as_failed(uri: str) -> None:
    class Failing(Small):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            raise RuntimeError("of the user")

    logger = MLFlowLogger(tracking_uri=uri)
    logger.log_hyperparams({"lr": 0.1})
    with pytest.raises(RuntimeError, match="of the user"):
        fitted(Failing(), logger=logger)
    assert stored(logger, uri).info.status == "FAILED"


def test_hyperparameters_are_stored_by_path_and_in_full_number(uri: str) -> None:
    logger = MLFlowLogger(tracking_uri=uri)
    many = {f"p{number}": number for number in range(150)}
    logger.log_hyperparams({"net": {"width": 8}, "text": "x" * 400, **many})
    params = stored(logger, uri).data.params
    assert params["net/width"] == "8"
    assert params["text"] == "x" * 250
    assert len(params) == 152


def test_many_hyperparameters_are_sent_in_parts(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger, sizes = MLFlowLogger(tracking_uri=uri), []
    log_batch = logger.experiment.log_batch

    def count(run_id: str, params: Any) -> None:
        sizes.append(len(params))
        log_batch(run_id, params=params)

    monkeypatch.setattr(logger.experiment, "log_batch", count)
    logger.log_hyperparams({f"p{number}": number for number in range(250)})
    assert sizes == [100, 100, 50]
    assert len(stored(logger, uri).data.params) == 250


def test_names_are_prefixed_and_cleaned(uri: str) -> None:
    logger = MLFlowLogger(tracking_uri=uri, prefix="exp")
    with pytest.warns(RuntimeWarning, match="'exp-acc@1' is recorded as 'exp-acc1'"):
        logger.log_metrics({"acc@1": torch.tensor(0.5)}, step=2)
    assert points(logger, uri, "exp-acc1") == [(2, 0.5)]


def test_text_is_dropped_with_a_warning(uri: str) -> None:
    logger = MLFlowLogger(tracking_uri=uri)
    with pytest.warns(UserWarning, match="drops the metric note='hi'"):
        logger.log_metrics({"note": "hi", "loss": 1.0})
    assert set(stored(logger, uri).data.metrics) == {"loss"}


def test_run_and_experiment_are_gone_on_with(uri: str) -> None:
    first = MLFlowLogger("mine", tracking_uri=uri)
    first.log_metrics({"loss": 1.0}, step=0)
    second = MLFlowLogger("mine", tracking_uri=uri)
    assert second.experiment_id == first.experiment_id
    assert second.run_id != first.run_id
    again = MLFlowLogger(tracking_uri=uri, run_id=first.run_id)
    again.log_metrics({"loss": 2.0}, step=1)
    assert again.experiment_id == first.experiment_id
    assert points(again, uri, "loss") == [(0, 1.0), (1, 2.0)]


def test_store_is_found_by_argument_environment_or_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MLFlowLogger(save_dir=tmp_path / "s").save_dir == str(tmp_path / "s")
    monkeypatch.chdir(tmp_path)
    assert MLFlowLogger().save_dir == "./mlruns"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:./elsewhere")
    assert MLFlowLogger().save_dir == "./elsewhere"
    assert MLFlowLogger(tracking_uri="http://localhost:1").save_dir is None


def test_refused_store_says_what_to_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE")
    with pytest.raises(MisconfigurationException, match=r"sqlite:///mlflow\.db"):
        MLFlowLogger(save_dir=tmp_path)


@pytest.mark.parametrize(
    ("log_model", "save_top_k", "expected"),
    [("all", 1, 2), (True, 1, 1), (True, -1, 2), (False, 1, 0)],
)
def test_checkpoints_are_stored_as_log_model_says(
    tmp_path: Path, uri: str, log_model: Any, save_top_k: int, expected: int
) -> None:
    logger = MLFlowLogger(tracking_uri=uri, log_model=log_model)
    checkpoint = ModelCheckpoint(tmp_path / "ckpt", save_top_k=save_top_k)
    trainer = quiet(
        logger=logger,
        callbacks=[checkpoint],
        enable_checkpointing=True,
        max_epochs=2,
    )
    trainer.fit(Small(), DataLoader(torch.ones(4, 4)))

    artifacts = MlflowClient(uri).list_artifacts(str(logger.run_id))
    assert len(artifacts) == expected
    if not expected:
        return
    newest = Path(checkpoint.best_model_path)
    folder = tmp_path / "fetched"
    folder.mkdir()
    MlflowClient(uri).download_artifacts(str(logger.run_id), newest.stem, str(folder))
    fetched = folder / newest.stem
    assert (fetched / newest.name).read_bytes() == newest.read_bytes()
    metadata = yaml.safe_load((fetched / "metadata.yaml").read_text())
    assert metadata["original_filename"] == newest.name
    assert metadata["Checkpoint"]["save_top_k"] == save_top_k


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mlflow.tracking", None)
    monkeypatch.setitem(__import__("sys").modules, "mlflow", None)
    with pytest.raises(MissingDependencyError, match="pip install mlflow"):
        MLFlowLogger()


def test_other_ranks_begin_no_run(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightgen_runtime.utilities.rank_zero.rank_zero_only.rank", 1)
    logger = MLFlowLogger(tracking_uri=uri)
    logger.log_metrics({"loss": 1.0})
    logger.log_hyperparams({"lr": 1.0})
    logger.finalize("success")
    monkeypatch.undo()
    assert MlflowClient(uri).get_experiment_by_name("lightning_logs") is None
