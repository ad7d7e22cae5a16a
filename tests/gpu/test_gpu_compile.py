"""Fits that are compiled for a CUDA device."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gpu_runs import Classifier, loader, on_gpu, quiet
from torch import nn

from lightgen_runtime import Callback, Trainer

pytestmark = [*on_gpu, pytest.mark.filterwarnings("default")]


class Steady(Classifier):
    """Without dropout, whose random numbers a compiler may draw in another order."""

    def __init__(self) -> None:
        super().__init__()
        self.net[2] = nn.Identity()


class Graphs(Callback):
    """Counts what has been compiled by each epoch's end."""

    def __init__(self) -> None:
        self.counts: list[int] = []

    def on_train_epoch_end(self, *_: Any) -> None:
        from torch._dynamo.utils import counters

        self.counts.append(counters["stats"]["unique_graphs"])


def fitted(**flags: Any) -> tuple[Trainer, Graphs]:
    graphs = Graphs()
    torch.manual_seed(0)
    trainer = quiet(max_epochs=3, callbacks=graphs, log_every_n_steps=5, **flags)
    trainer.fit(Steady(), loader(pin_memory=True))
    return trainer, graphs


def assert_close(ours: Trainer, theirs: Trainer, tolerance: float) -> None:
    state = theirs.lightning_module.state_dict()
    for name, tensor in ours.lightning_module.state_dict().items():
        torch.testing.assert_close(tensor, state[name], atol=tolerance, rtol=tolerance)
    for name, value in theirs.callback_metrics.items():
        found = ours.callback_metrics[name]
        torch.testing.assert_close(found, value, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize(
    ("compiled", "precision", "tolerance"),
    [
        (True, "32-true", 1e-3),
        (True, "bf16-mixed", 5e-2),
        (True, "16-mixed", 5e-2),
        ("reduce-overhead", "32-true", 1e-3),
    ],
)
def test_compiled_fit_is_the_one_as_written(
    compiled: Any, precision: str, tolerance: float
) -> None:
    torch._dynamo.reset()
    written, _ = fitted(precision=precision)
    ours, graphs = fitted(precision=precision, compile=compiled)
    assert_close(ours, written, tolerance)
    first, *later = graphs.counts
    assert later == [first, first]


def test_value_logged_now_and_then_outlives_later_steps() -> None:
    """CUDA graphs write a step's results where those of the step before were."""

    class Seldom(Steady):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            loss = super().training_step(batch, batch_idx)
            if batch_idx == 2:
                self.log("seldom", loss, on_step=True)
            return loss

    def logged(**flags: Any) -> float:
        trainer = quiet(max_epochs=2, log_every_n_steps=7, **flags)
        trainer.fit(Seldom(), loader(pin_memory=True))
        return trainer.callback_metrics["seldom"].item()

    torch._dynamo.reset()
    compiled = logged(compile="reduce-overhead")
    assert compiled == pytest.approx(logged(), abs=1e-3)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_compiled_steps_wait_for_nothing() -> None:
    torch._dynamo.reset()

    class Strict(Callback):
        def on_train_batch_start(
            self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
        ) -> None:
            if trainer.current_epoch == 1 and batch_idx == 2:
                torch.cuda.set_sync_debug_mode("error")

        def on_train_batch_end(
            self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            if batch_idx == 6:
                torch.cuda.set_sync_debug_mode("default")

    try:
        trainer = quiet(max_epochs=2, compile=True, callbacks=Strict())
        trainer.fit(Steady(), loader(pin_memory=True))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert trainer.global_step == 24


def test_parts_are_compiled_where_optimization_is_by_hand() -> None:
    class ByHand(Steady):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> None:
            optimizer: Any = self.optimizers()
            loss = super().training_step(batch, batch_idx)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()

    def fitted_by_hand(**flags: Any) -> Trainer:
        trainer = quiet(**flags)
        trainer.fit(ByHand(), loader(pin_memory=True))
        return trainer

    torch._dynamo.reset()
    compiled = fitted_by_hand(compile=True, precision="bf16-mixed")
    assert_close(compiled, fitted_by_hand(precision="bf16-mixed"), 5e-2)
