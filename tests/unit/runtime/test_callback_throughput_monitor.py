"""`ThroughputMonitor` and `Throughput`. The clock is the test's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import Small, fitted

from lightgen_runtime import Callback
from lightgen_runtime.callbacks import ThroughputMonitor, throughput_monitor
from lightgen_runtime.loggers import CSVLogger
from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.throughput import (
    Throughput,
    get_available_flops,
    measure_flops,
)


def test_rates_are_those_of_training_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(throughput_monitor, "perf_counter", lambda: clock[0])

    class Passing(Callback):
        def on_train_batch_start(self, *args: Any) -> None:
            clock[0] += 0.5

        def on_validation_batch_start(self, *args: Any) -> None:
            clock[0] += 100.0

    seen: list[dict[str, float]] = []

    class Kept(CSVLogger):
        def log_metrics(self, metrics: Any, step: int | None = None) -> None:
            seen.append(dict(metrics))

    monitor = ThroughputMonitor(len, lambda batch: batch.numel(), window_size=2)
    fitted(
        Small(),
        callbacks=[Passing(), monitor],
        logger=Kept(tmp_path),
        log_every_n_steps=2,
        val_check_interval=1,
    )
    last = [row for row in seen if "train/time" in row][-1]
    assert last["train/time"] == 2.0
    assert last["train/samples"] == 8
    assert last["train/device/batches_per_sec"] == 2.0
    assert last["train/device/samples_per_sec"] == 4.0
    assert last["train/device/items_per_sec"] == 16.0
    assert any(row.get("validate/device/batches_per_sec") == 0.01 for row in seen)


def test_trainer_without_a_logger_is_refused() -> None:
    with pytest.raises(MisconfigurationException, match="add a logger"):
        fitted(Small(), callbacks=[ThroughputMonitor(len)])


def test_rates_need_a_full_window_and_start_again() -> None:
    meter = Throughput(available_flops=100.0, world_size=2, window_size=2)
    assert meter.compute() == {}
    meter.update(time=1.0, batches=1, samples=2, flops=10)
    assert meter.compute() == {"time": 1.0, "batches": 1, "samples": 2}
    meter.update(time=3.0, batches=2, samples=6, flops=10)
    rates = meter.compute()
    assert rates["samples_per_sec"] == 4.0
    assert rates["device/samples_per_sec"] == 2.0
    assert rates["device/mfu"] == 0.05
    meter.reset()
    assert meter.compute() == {}


@pytest.mark.parametrize(
    ("update", "message"),
    [
        ({"time": 1.0, "batches": 3, "samples": 6}, "must grow"),
        ({"time": 2.0, "batches": 3, "samples": 2}, "at least one sample"),
        ({"time": 2.0, "batches": 3, "samples": 6, "lengths": 5}, "at least one item"),
        ({"time": 2.0, "batches": 3, "samples": 6, "lengths": 9}, "in each update"),
    ],
)
def test_totals_that_contradict_are_refused(
    update: dict[str, Any], message: str
) -> None:
    meter = Throughput()
    meter.update(time=1.0, batches=1, samples=2)
    with pytest.raises(ValueError, match=message):
        meter.update(**update)


@pytest.mark.parametrize("arguments", [{"world_size": 0}, {"window_size": 1}])
def test_impossible_window_is_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(MisconfigurationException, match="at least 1 device"):
        Throughput(**arguments)  # type: ignore[arg-type]


def test_operations_of_both_passes_are_counted() -> None:
    net, batch = torch.nn.Linear(8, 4), torch.randn(2, 8)
    forward = measure_flops(net, lambda: net(batch))
    both = measure_flops(net, lambda: net(batch), torch.sum)
    assert forward == 2 * 2 * 8 * 4
    assert both == 2 * forward


@pytest.mark.parametrize(
    ("name", "dtype", "peak"),
    [
        ("NVIDIA H100 PCIe", torch.bfloat16, 756e12),
        ("NVIDIA H100 80GB HBM3", torch.float16, 989.4e12),
        ("NVIDIA A100-SXM4-40GB", torch.float32, 19.5e12),
        ("NVIDIA A100-SXM4-40GB", torch.int8, None),
        ("NVIDIA Something", torch.float32, None),
    ],
)
def test_peak_of_known_devices(
    name: str, dtype: torch.dtype, peak: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert get_available_flops(torch.device("cuda", 0), dtype) == peak
    assert get_available_flops(torch.device("cpu"), dtype) is None
