"""`LearningRateMonitor`: what it refuses and what it keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import Small, fitted, variant

from lightgen_runtime.callbacks import LearningRateMonitor
from lightgen_runtime.loggers import CSVLogger
from lightgen_runtime.utilities.exceptions import MisconfigurationException


def test_rates_stand_in_the_log_at_their_steps(tmp_path: Path) -> None:
    def configure_optimizers(self: Any) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        halving = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 0.5**n)
        return [optimizer], [{"scheduler": halving, "interval": "step"}]

    monitor = LearningRateMonitor()
    logger = CSVLogger(tmp_path, name="", version="log")
    fitted(
        variant(configure_optimizers=configure_optimizers),
        callbacks=[monitor],
        logger=logger,
        log_every_n_steps=2,
    )
    assert monitor.lrs == {"lr-SGD": [0.05, 0.0125]}
    header, *rows = (tmp_path / "log" / "metrics.csv").read_text().splitlines()
    assert "lr-SGD" in header
    assert [row for row in rows if "0.05" in row]


def test_trainer_without_a_logger_is_refused() -> None:
    with pytest.raises(MisconfigurationException, match="add a logger"):
        fitted(Small(), callbacks=[LearningRateMonitor()])


def test_unknown_interval_is_refused() -> None:
    with pytest.raises(MisconfigurationException, match="'step', 'epoch' and None"):
        LearningRateMonitor("batch")


def test_groups_of_one_name_are_refused(tmp_path: Path) -> None:
    def configure_optimizers(self: Any) -> Any:
        return torch.optim.SGD(
            [{"params": [p], "name": "same"} for p in self.parameters()], lr=0.1
        )

    with pytest.raises(MisconfigurationException, match="lr-SGD/same"):
        fitted(
            variant(configure_optimizers=configure_optimizers),
            callbacks=[LearningRateMonitor()],
            logger=CSVLogger(tmp_path),
        )


def test_optimizer_without_momentum_is_warned_about(tmp_path: Path) -> None:
    def configure_optimizers(self: Any) -> Any:
        return torch.optim.Adagrad(self.parameters())

    monitor = LearningRateMonitor(log_momentum=True)
    with pytest.warns(UserWarning, match="no momentum"):
        fitted(
            variant(configure_optimizers=configure_optimizers),
            callbacks=[monitor],
            logger=CSVLogger(tmp_path),
        )
    assert monitor.last_momentum_values == {"lr-Adagrad-momentum": 0.0}
