"""What stands in for a logger when a trial run must leave nothing."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

from small_runs import loader as batches
from small_runs import quiet, variant

from lightgen_runtime.loggers import CSVLogger
from lightgen_runtime.loggers.logger import DummyExperiment, DummyLogger


def test_fast_dev_run_lets_code_log_and_leaves_nothing(tmp_path: Path) -> None:
    reached = []

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        self.logger.experiment.add_image("picture", batch)
        self.logger.experiment[0].add_text("a", "b")
        self.logger.log_image(key="x", images=[batch])
        self.log("loss", 1.0)
        reached.append(type(self.logger))
        return self(batch).pow(2).mean()

    logger = CSVLogger(tmp_path)
    trainer = quiet(fast_dev_run=True, logger=logger, default_root_dir=tmp_path)
    trainer.fit(variant(training_step=training_step), batches())
    assert reached == [DummyLogger]
    assert list(tmp_path.iterdir()) == []


def test_fast_dev_run_without_logger_has_none() -> None:
    assert quiet(fast_dev_run=True, logger=False).loggers == []


def test_dummy_can_be_copied() -> None:
    assert isinstance(copy.deepcopy(DummyLogger()), DummyLogger)
    assert isinstance(pickle.loads(pickle.dumps(DummyExperiment())), DummyExperiment)


def test_dummy_takes_the_whole_interface() -> None:
    dummy = DummyLogger()
    dummy.log_metrics({"loss": 1.0}, step=1)
    dummy.log_hyperparams({"lr": 1.0})
    dummy.finalize("success")
    dummy.experiment[0] = 1
    assert (dummy.name, dummy.version, dummy.save_dir) == ("", "", None)
    assert dummy[0] is dummy
