"""Loggers on both packages: the same folders, files and rows."""

from __future__ import annotations

import csv
import importlib
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from recording import data, quiet_trainer, small_module

pytestmark = pytest.mark.filterwarnings("ignore")


def module(loggers: Any) -> Any:
    namespace = loggers.__name__.partition(".")[0]
    base = small_module(namespace)

    class Logging(base):  # type: ignore[misc,valid-type]
        example_input_array = torch.ones(2, 4)

        def __init__(self, rate: float = 0.1, widths: tuple[int, ...] = (3, 4)) -> None:
            super().__init__()
            self.save_hyperparameters()

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.log("by/step", float(batch_idx))
            self.log("by epoch", float(self.current_epoch), on_epoch=True)
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val", 0.5)

        def forward(self, x: Any) -> Any:
            return self.layer(x)

    return Logging()


def trainer(loggers: Any, logger: Any, **flags: Any) -> Any:
    namespace = loggers.__name__.partition(".")[0]
    settings = {"max_epochs": 2, "log_every_n_steps": 2, "logger": logger}
    return quiet_trainer(namespace, **{**settings, **flags})


def names(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*"))


@pytest.mark.parametrize("kind", ["CSVLogger", "TensorBoardLogger"])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"name": None},
        {"name": ""},
        {"name": "some", "version": 7},
        {"version": "a run"},
    ],
    ids=str,
)
def test_folders(kind: str, arguments: dict[str, Any], same_with_loggers: Any) -> None:
    def scenario(loggers: Any, root: Path) -> Any:
        found = []
        for _ in range(2):
            logger = getattr(loggers, kind)("logs", **arguments)
            trainer(loggers, logger).fit(module(loggers), data(), data(4))
            found.append(
                [
                    *(
                        logger.name,
                        logger.version,
                        logger.save_dir,
                        str(Path(logger.root_dir)),
                    ),
                    *(logger.log_dir, logger.group_separator, logger.LOGGER_JOIN_CHAR),
                ]
            )
        return found, [name for name in names(root) if "events" not in name]

    same_with_loggers(scenario)


@pytest.mark.parametrize("prefix", ["", "pre"])
def test_rows_and_hyperparameters_of_csv(prefix: str, same_with_loggers: Any) -> None:
    def scenario(loggers: Any, root: Path) -> Any:
        logger = loggers.CSVLogger("logs", prefix=prefix, flush_logs_every_n_steps=2)
        trainer(loggers, logger).fit(module(loggers), data(), data(4))
        logger.log_metrics({"own": torch.tensor(2.0), "other": 1}, step=77)
        logger.save()
        with (Path(logger.log_dir) / "metrics.csv").open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        return [{k: v and float(v) for k, v in row.items()} for row in rows]

    assert len(same_with_loggers(scenario)) == 9


def test_hyperparameters_of_csv(same_with_loggers: Any) -> None:
    def scenario(loggers: Any, root: Path) -> Any:
        logger = loggers.CSVLogger("logs")
        logger.log_hyperparams({"a": 1, "b": {"c": [1, 2]}, "d": None, "e": "x"})
        logger.log_hyperparams(Namespace(a=2, f=0.5))
        logger.save()
        path = Path(logger.log_dir) / "hparams.yaml"
        return yaml.safe_load(path.read_text())

    same_with_loggers(scenario)


def events(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    scalars = {
        tag: [(e.step, e.value) for e in found.Scalars(tag)]
        for tag in sorted(found.Tags()["scalars"])
    }
    return scalars, found.Tags()["graph"]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"prefix": "pre"},
        {"default_hp_metric": False},
        {"log_graph": True},
        {"sub_dir": "sub"},
    ],
    ids=str,
)
def test_events_of_tensorboard(
    arguments: dict[str, Any], same_with_loggers: Any
) -> None:
    def scenario(loggers: Any, root: Path) -> Any:
        logger = loggers.TensorBoardLogger("logs", **arguments)
        trainer(loggers, logger).fit(module(loggers), data(), data(4))
        logger.log_metrics(
            {"own": torch.tensor(2.0), "both": {"a": 1, "b": 2}}, step=77
        )
        logger.experiment.add_scalar("direct", 3.0, 5)
        logger.save()
        logger.finalize("success")
        # Which the runtime writes as plain data: a tuple is a list.
        hparams = Path(logger.log_dir) / "hparams.yaml"
        loaded = yaml.unsafe_load(hparams.read_text())
        kept = {k: list(v) if isinstance(v, tuple) else v for k, v in loaded.items()}
        return events(Path(logger.log_dir)), kept, logger.sub_dir

    same_with_loggers(scenario)


def test_metric_of_hyperparameters_in_tensorboard(same_with_loggers: Any) -> None:
    def scenario(loggers: Any, root: Path) -> Any:
        logger = loggers.TensorBoardLogger("logs")
        logger.log_hyperparams({"rate": 0.1}, {"hp/loss": 0.5})
        logger.log_hyperparams({"rate": 0.1}, 0.25)
        logger.log_hyperparams({"rate": 0.1}, {"late": 0.75}, step=4)
        logger.finalize("success")
        return events(Path(logger.log_dir))[0]

    same_with_loggers(scenario)


def test_loggers_of_the_users_own(same_with_loggers: Any) -> None:
    def scenario(loggers: Any, root: Path) -> Any:
        base = importlib.import_module(f"{loggers.__name__}.logger")
        calls: list[Any] = []

        class Own(base.Logger):  # type: ignore[misc,name-defined]
            @property
            def name(self) -> str:
                return "own"

            @property
            def version(self) -> str:
                return "v1"

            @property
            @base.rank_zero_experiment
            def experiment(self) -> Any:
                return calls

            def log_metrics(self, metrics: Any, step: Any = None) -> None:
                self.experiment.append((sorted(metrics), step))

            def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
                self.experiment.append(sorted(params))

            def log_graph(self, model: Any, input_array: Any = None) -> None:
                self.experiment.append("graph")

            def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
                self.experiment.append("saved")

            def finalize(self, status: str) -> None:
                self.experiment.append(status)

        own = Own()
        run = trainer(
            loggers, [own, loggers.CSVLogger("logs")], enable_checkpointing=True
        )
        run.fit(module(loggers), data(), data(4))
        defaults = own.save_dir, own.root_dir, own.log_dir, own.group_separator
        # Ours has a manifest beside checkpoints, as docs/compat.md says.
        files = [name for name in names(root) if not name.endswith("manifest.json")]
        return calls, defaults, run.logger is own, files

    found = same_with_loggers(scenario)
    assert found[0][-1] == "success"


def test_stand_ins(same_with_loggers: Any) -> None:
    def scenario(loggers: Any, root: Path) -> Any:
        base = importlib.import_module(f"{loggers.__name__}.logger")
        dummy = base.DummyLogger()
        dummy.experiment.add_image("x", 1)
        dummy.experiment[0]["a"].add(1)
        dummy.anything(1, b=2)
        dummy.log_metrics({"a": 1}, 1)
        dummy.log_hyperparams({"a": 1})
        run = trainer(loggers, loggers.CSVLogger("logs"), fast_dev_run=True)
        run.fit(module(loggers), data(), data(4))
        kinds = [type(logger).__name__ for logger in run.loggers]
        return dummy.name, dummy.version, dummy[0] is dummy, kinds, names(root)

    same_with_loggers(scenario)


def test_experiment_of_another_process(
    same_with_loggers: Any, monkeypatch: Any
) -> None:
    def scenario(loggers: Any, root: Path) -> Any:
        namespace = loggers.__name__.partition(".")[0]
        path = f"{namespace}.pytorch.utilities.rank_zero"
        rank_zero_only = importlib.import_module(path).rank_zero_only
        logger = loggers.TensorBoardLogger("logs")
        monkeypatch.setattr(rank_zero_only, "rank", 1)
        logger.experiment.add_scalar("a", 1.0, 1)
        logger.log_metrics({"a": 1.0}, 1)
        logger.log_hyperparams({"a": 1.0})
        logger.save()
        logger.finalize("success")
        monkeypatch.setattr(rank_zero_only, "rank", 0)
        return names(root)

    assert same_with_loggers(scenario) == []
