"""What the simple profiler counts, in both packages."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
from recording import data, quiet_trainer, small_module

SAME = {
    "run_training_epoch": 2,
    "run_training_batch": 8,
    "[_TrainingEpochLoop].train_dataloader_next": 8,
    "[_EvaluationLoop].val_next": 6,
    "[Strategy]SingleDeviceStrategy.training_step": 8,
    "[Strategy]SingleDeviceStrategy.validation_step": 6,
    "[Strategy]SingleDeviceStrategy.backward": 8,
    "[LightningModule]Small.optimizer_step": 4,
    "[LightningModule]Small.optimizer_zero_grad": 4,
    "[LightningModule]Small.on_train_epoch_end": 2,
    "[Callback]Both.on_train_batch_end": 8,
    "[Callback]Both.on_validation_epoch_end": 3,
    "of the user": 8,
}


@pytest.mark.parametrize("namespace", ["lightning.pytorch", "lightgen_runtime"])
@pytest.mark.filterwarnings("ignore::FutureWarning:lightning")
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_actions_are_counted_under_the_same_names(namespace: str) -> None:
    L = importlib.import_module(namespace)
    profilers = importlib.import_module(f"{namespace}.profilers")

    class Small(small_module(namespace)):  # type: ignore[misc]
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            with self.trainer.profiler.profile("of the user"):
                return super().training_step(batch, batch_idx)

        def on_train_epoch_end(self) -> None:
            pass

    class Both(L.Callback):  # type: ignore[name-defined,misc]
        def on_train_batch_end(self, *args: Any) -> None:
            pass

        def on_validation_epoch_end(self, *args: Any) -> None:
            pass

    Both.__qualname__ = "Both"
    profiler = profilers.SimpleProfiler()
    trainer = quiet_trainer(
        namespace,
        max_epochs=2,
        profiler=profiler,
        callbacks=[Both()],
        accumulate_grad_batches=2,
    )
    trainer.fit(Small(), data(8), data(4))
    counted = {name: len(times) for name, times in profiler.recorded_durations.items()}
    assert {name: counted.get(name) for name in SAME} == SAME


@pytest.mark.parametrize("namespace", ["lightning.pytorch", "lightgen_runtime"])
def test_simple_profiler_refuses_what_does_not_pair(namespace: str) -> None:
    profiler = importlib.import_module(f"{namespace}.profilers").SimpleProfiler()
    with profiler.profile("a"), pytest.raises(ValueError, match="a"):
        profiler.start("a")
    with pytest.raises(ValueError, match="b"):
        profiler.stop("b")


@pytest.mark.parametrize("namespace", ["lightning.pytorch", "lightgen_runtime"])
@pytest.mark.parametrize("name", ["Simple", "Advanced"])
def test_report_goes_to_a_file_of_the_same_name(
    namespace: str, name: str, tmp_path: Any
) -> None:
    kind = getattr(importlib.import_module(f"{namespace}.profilers"), f"{name}Profiler")
    profiler = kind(dirpath=tmp_path, filename="report")
    with profiler.profile("load"):
        sum(range(10))
    profiler.setup("fit", local_rank=0)
    profiler.describe()
    text = (tmp_path / "fit-report-0.txt").read_text()
    assert text.startswith("FIT Profiler Report")
    assert "load" in text
