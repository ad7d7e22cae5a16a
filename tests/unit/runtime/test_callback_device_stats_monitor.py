"""`DeviceStatsMonitor`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from small_runs import Small, fitted

from lightgen_runtime.callbacks import DeviceStatsMonitor
from lightgen_runtime.loggers import CSVLogger
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


def test_trainer_without_a_logger_is_refused() -> None:
    with pytest.raises(MisconfigurationException, match="add a logger"):
        fitted(Small(), callbacks=[DeviceStatsMonitor()])


def test_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    with pytest.raises(MissingDependencyError, match="pip install psutil"):
        fitted(Small(), callbacks=[DeviceStatsMonitor()], logger=CSVLogger(tmp_path))
