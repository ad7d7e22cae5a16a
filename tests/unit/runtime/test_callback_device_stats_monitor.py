"""`DeviceStatsMonitor`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import Small, fitted, loader

from lightgen_runtime import Trainer
from lightgen_runtime.accelerators import accelerator
from lightgen_runtime.callbacks import DeviceStatsMonitor
from lightgen_runtime.loggers import CSVLogger
from lightgen_runtime.strategies import SingleDeviceStrategy
from lightgen_runtime.utilities.exceptions import (
    MisconfigurationException,
    MissingDependencyError,
)


def header(folder: Path) -> str:
    path = folder / "log" / "metrics.csv"
    return path.read_text().splitlines()[0] if path.exists() else ""


def test_load_of_the_processor_is_logged(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, name="", version="log")
    fitted(
        Small(), callbacks=[DeviceStatsMonitor()], logger=logger, log_every_n_steps=2
    )
    assert "DeviceStatsMonitor.on_train_batch_start/cpu_percent" in header(tmp_path)


def test_processor_can_be_left_out(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, name="", version="log")
    fitted(
        Small(),
        callbacks=[DeviceStatsMonitor(cpu_stats=False)],
        logger=logger,
        log_every_n_steps=1,
    )
    assert "cpu_percent" not in header(tmp_path)


def test_another_device_is_reported_and_the_processor_on_request_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Meta(accelerator.CPUAccelerator):
        def get_device_stats(self, device: Any) -> dict[str, Any]:
            return {"used": 3.0}

    monkeypatch.setitem(accelerator._KINDS, "meta", Meta)

    def header_of(version: str, cpu_stats: bool | None) -> str:
        logger = CSVLogger(tmp_path, name="", version=version)
        trainer = Trainer(
            strategy=SingleDeviceStrategy(torch.device("meta")),
            callbacks=[DeviceStatsMonitor(cpu_stats)],
            logger=logger,
            log_every_n_steps=1,
            max_epochs=1,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(Small(), loader())
        return (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()[0]

    alone = header_of("alone", None)
    assert "on_train_batch_end/used" in alone
    assert "cpu_percent" not in alone
    both = header_of("both", True)
    assert "on_train_batch_end/used" in both
    assert "on_train_batch_end/cpu_percent" in both


def test_trainer_without_a_logger_is_refused() -> None:
    with pytest.raises(MisconfigurationException, match="add a logger"):
        fitted(Small(), callbacks=[DeviceStatsMonitor()])


def test_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    with pytest.raises(MissingDependencyError, match="pip install psutil"):
        fitted(Small(), callbacks=[DeviceStatsMonitor()], logger=CSVLogger(tmp_path))
