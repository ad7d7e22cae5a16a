"""What `TensorBoardLogger` writes, read back with TensorBoard's own reader."""

from __future__ import annotations

import pickle
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from small_runs import Small, fitted, variant

from lightgen_runtime.loggers import TensorBoardLogger
from lightgen_runtime.loggers.event_file import EventFile
from lightgen_runtime.utilities.exceptions import MissingDependencyError


class Colour(Enum):
    RED = 1


def events(folder: str | Path) -> Any:
    """Read every event file of a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return accumulator


def scalars(folder: str | Path, name: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events(folder).Scalars(name)]


def hyperparameters(folder: str | Path) -> dict[str, Any]:
    """Return what TensorBoard's table of runs shows."""
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    content = events(folder).PluginTagToContent("hparams")
    data = HParamsPluginData.FromString(content["_hparams_/session_start_info"])
    return {
        key: getattr(value, str(value.WhichOneof("kind")))
        for key, value in data.session_start_info.hparams.items()
    }


def test_fit_writes_the_logged_metrics_at_their_steps(tmp_path: Path) -> None:
    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        self.log("idx", float(batch_idx))
        return self(batch).pow(2).mean()

    logger = TensorBoardLogger(tmp_path, name="exp")
    fitted(
        variant(training_step=training_step),
        logger=logger,
        log_every_n_steps=2,
        max_epochs=2,
    )

    assert logger.log_dir == str(tmp_path / "exp" / "version_0")
    assert scalars(logger.log_dir, "idx") == [(1, 1.0), (3, 3.0), (5, 1.0), (7, 3.0)]
    assert [step for step, _ in scalars(logger.log_dir, "val_loss")] == [3, 7]
    assert scalars(logger.log_dir, "epoch")[0] == (1, 0.0)


def test_names_versions_and_folders_are_placed(tmp_path: Path) -> None:
    first = TensorBoardLogger(tmp_path, sub_dir="sub")
    assert (first.name, first.version) == ("lightning_logs", 0)
    assert first.save_dir == str(tmp_path)
    assert first.root_dir == str(tmp_path / "lightning_logs")
    assert first.log_dir == str(tmp_path / "lightning_logs" / "version_0" / "sub")
    assert TensorBoardLogger(tmp_path).version == 1

    named = TensorBoardLogger(tmp_path, name=None, version="best")
    assert (named.name, named.log_dir) == ("", str(tmp_path / "best"))
    numbered = TensorBoardLogger(tmp_path, name="", version=7)
    assert numbered.log_dir == str(tmp_path / "version_7")


def test_folders_may_hold_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUN", str(tmp_path))
    assert TensorBoardLogger("$RUN", name="", version=0).log_dir == str(
        tmp_path / "version_0"
    )


def test_prefix_tensors_and_groups(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, prefix="exp")
    logger.log_metrics({"loss": torch.tensor([0.5]), "pair": {"a": 1, "b": 2}}, step=3)
    logger.save()
    assert scalars(logger.log_dir, "exp-loss") == [(3, 0.5)]
    assert scalars(Path(logger.log_dir) / "exp-pair_a", "exp-pair") == [(3, 1.0)]


def test_value_that_is_no_number_is_named(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    with pytest.raises(ValueError, match=r"'loss'=tensor\(.*1-element tensor"):
        logger.log_metrics({"loss": torch.ones(2)})


@pytest.mark.parametrize("version", [None, 0])
def test_folder_that_cannot_be_made_ends_the_fit_at_its_start(
    version: int | None, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    logger = TensorBoardLogger(tmp_path / "file", version=version)
    with pytest.raises(OSError, match="file"):
        fitted(Small(), logger=logger)
    with pytest.raises(OSError, match="file"):
        logger.log_metrics({"loss": 1.0}, step=0)


def test_hyperparameters_reach_the_table_and_the_file(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    given = {
        "lr": 0.1,
        "depth": 3,
        "fast": True,
        "nested": {"colour": Colour.RED, "sizes": [1, 2], "none": None},
    }
    logger.log_hyperparams(given)
    logger.finalize("success")

    assert hyperparameters(logger.log_dir) == {
        "lr": 0.1,
        "depth": 3.0,
        "fast": True,
        "nested/colour": "RED",
        "nested/sizes": "[1, 2]",
        "nested/none": "None",
    }
    assert scalars(logger.log_dir, "hp_metric") == [(0, -1.0)]
    text = Path(logger.log_dir, "hparams.yaml").read_text()
    assert yaml.safe_load(text) == {
        **given,
        "nested": {"colour": "RED", "sizes": [1, 2], "none": None},
    }


def test_hyperparameters_with_metrics(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, name="a")
    logger.log_hyperparams({"lr": 0.1}, metrics={"acc": 0.5}, step=2)
    logger.log_hyperparams({"lr": 0.1}, metrics=0.25, step=3)
    logger.save()
    assert scalars(logger.log_dir, "acc") == [(2, 0.5)]
    assert scalars(logger.log_dir, "hp_metric") == [(3, 0.25)]


def test_without_default_metric_only_the_file_gets_hyperparameters(
    tmp_path: Path,
) -> None:
    logger = TensorBoardLogger(tmp_path, default_hp_metric=False)
    logger.log_hyperparams({"lr": 0.1})
    logger.save()
    assert events(logger.log_dir).Tags()["scalars"] == []
    assert yaml.safe_load(Path(logger.log_dir, "hparams.yaml").read_text()) == {
        "lr": 0.1
    }


def test_existing_hparams_file_stays(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, version=0)
    path = Path(logger.log_dir, "hparams.yaml")
    path.parent.mkdir(parents=True)
    path.write_text("lr: 1\n")
    logger.log_hyperparams({"lr": 2})
    logger.save()
    assert path.read_text() == "lr: 1\n"


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_graph_of_the_module_is_recorded_by_a_fit(tmp_path: Path) -> None:
    module = Small()
    module.example_input_array = torch.zeros(1, 4)
    logger = TensorBoardLogger(tmp_path, log_graph=True)
    fitted(module, logger=logger)
    assert events(logger.log_dir).Tags()["graph"] is True


def test_graph_without_example_warns(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, log_graph=True)
    with pytest.warns(UserWarning, match="`example_input_array` is NoneType"):
        logger.log_graph(Small())


def test_finalized_logger_goes_on(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    logger.log_metrics({"loss": 1.0}, step=0)
    logger.finalize("success")
    logger.log_metrics({"loss": 2.0}, step=1)
    logger.finalize("failed")
    assert sorted(scalars(logger.log_dir, "loss")) == [(0, 1.0), (1, 2.0)]


def test_much_is_written_before_a_flush_is_due(tmp_path: Path) -> None:
    """Else memory fills up, and a killed program has lost all of it."""
    path = tmp_path / "events"
    path.touch()
    file = EventFile(str(path))
    for number in range(30):
        file.write(bytes([number]) * 100_000)
    assert path.stat().st_size > 2_000_000
    file.close()
    assert path.read_bytes()[::100_000] == bytes(range(30))


def test_other_ranks_write_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightgen_runtime.utilities.rank_zero.rank_zero_only.rank", 1)
    logger = TensorBoardLogger(tmp_path)
    logger.experiment.add_scalar("loss", 1.0)
    logger.log_metrics({"loss": 1.0})
    logger.log_hyperparams({"lr": 1.0})
    logger.save()
    logger.finalize("success")
    assert list(tmp_path.iterdir()) == []


def test_pickled_logger_goes_on_in_its_folder(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    logger.log_metrics({"loss": 1.0}, step=0)
    logger.save()
    other = pickle.loads(pickle.dumps(logger))
    assert other.log_dir == logger.log_dir
    other.log_metrics({"loss": 2.0}, step=1)
    other.save()
    assert len(scalars(logger.log_dir, "loss")) == 2


def test_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorboard", None)
    with pytest.raises(MissingDependencyError, match="pip install tensorboard"):
        TensorBoardLogger(tmp_path)
