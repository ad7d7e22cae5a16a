"""What is logged, under which keys, at which steps and with which values."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from recording import (
    OURS,
    REFERENCE,
    callbacks_of,
    data,
    memory_logger,
    quiet_trainer,
    small_module,
)


def run(namespace: str, body: Any, **flags: Any) -> dict[str, Any]:
    logger = memory_logger(namespace)
    module = body(small_module(namespace))()
    trainer = quiet_trainer(namespace, logger=logger, **flags)
    trainer.fit(module, data(9, 2), data(5, 2))
    tested = trainer.test(module, [data(5, 2), data(3, 2)], verbose=False)
    return {
        "rows": logger.rows,
        "callback": {k: float(v) for k, v in trainer.callback_metrics.items()},
        "tested": tested,
    }


def plain(base: type[Any]) -> type[Any]:
    class Module(base):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = super().training_step(batch, batch_idx)
            self.log("loss", loss)
            self.log("both", loss * 2, on_step=True, on_epoch=True, prog_bar=True)
            self.log("epoch", loss * 3, on_step=False, on_epoch=True)
            self.log("number", batch_idx + 0.5, on_epoch=True)
            self.log("largest", loss, reduce_fx="max", on_step=False, on_epoch=True)
            self.log("quiet", loss, logger=False)
            return loss

        def validation_step(self, batch: Any, batch_idx: int) -> Any:
            value = self.layer(batch).mean()
            self.log_dict({"val_mean": value, "val_other": value + 1})
            self.log("val_sum", value, reduce_fx="sum")
            self.log("val_min", value, reduce_fx=torch.min)
            self.log("val_both", value, on_step=True, on_epoch=True)
            self.log("val_weighted", value, batch_size=batch_idx + 1)

        def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int) -> Any:
            self.log("test_mean", self.layer(batch).mean())
            self.log(f"own_{dataloader_idx}", batch.sum(), add_dataloader_idx=False)

    return Module


def from_hooks(base: type[Any]) -> type[Any]:
    class Module(base):
        def on_train_start(self) -> None:
            self.log("at_start", 1.0)

        def on_train_epoch_start(self) -> None:
            self.log("epoch_start", float(self.current_epoch))

        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            self.log("batch_start", float(batch_idx))

        def on_after_backward(self) -> None:
            self.log("grad", self.layer.weight.grad.norm())

        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            self.log("from_outputs", outputs["loss"])

        def on_train_epoch_end(self) -> None:
            self.log("epoch_end", float(self.global_step))

        def on_validation_epoch_end(self) -> None:
            self.log("val_epoch_end", float(self.global_step))

        def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int) -> Any:
            pass

        def on_test_epoch_end(self) -> None:
            self.log("test_epoch_end", 7.0)

    return Module


BODIES = {"plain": plain, "from hooks": from_hooks}
FLAGS = {
    "every step": {"max_epochs": 2, "log_every_n_steps": 1},
    "every third": {"max_epochs": 2, "log_every_n_steps": 3},
    "never in between": {"max_epochs": 2},
    "mid-epoch validation": {
        "max_epochs": 2,
        "log_every_n_steps": 1,
        "val_check_interval": 2,
    },
    "max steps": {"max_steps": 3, "log_every_n_steps": 1},
}


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("body", BODIES)
@pytest.mark.filterwarnings("ignore")
def test_logged_keys_steps_and_values_are_the_reference_ones(
    body: str, flags: str
) -> None:
    ours = run(OURS, BODIES[body], **FLAGS[flags])
    theirs = run(REFERENCE, BODIES[body], **FLAGS[flags])
    assert [step for step, _ in ours["rows"]] == [step for step, _ in theirs["rows"]]
    for (_, mine), (_, other) in zip(ours["rows"], theirs["rows"], strict=True):
        assert mine == pytest.approx(other)
    assert ours["callback"] == pytest.approx(theirs["callback"])
    assert len(ours["tested"]) == len(theirs["tested"])
    for mine, other in zip(ours["tested"], theirs["tested"], strict=True):
        assert mine == pytest.approx(other)


@pytest.mark.filterwarnings("ignore")
def test_callbacks_log_by_themselves() -> None:
    """`self.log` in a callback is the module's, also of the next module."""
    found = []
    for namespace in (OURS, REFERENCE):

        class Logging(callbacks_of(namespace).Callback):  # type: ignore[misc,name-defined]
            def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
                self.log("by_callback", 1.0 + trainer.current_epoch)

            def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
                self.log_dict({"val_a": 1.0, "val_b": 2.0})

        callback = Logging()
        for epochs in (1, 2):
            trainer = quiet_trainer(namespace, max_epochs=epochs, callbacks=[callback])
            trainer.fit(small_module(namespace)(), data(4), data(4))
            metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
            found.append(metrics)
    assert found[:2] == found[2:]
    assert found[1]["by_callback"] == 2.0
    assert found[1]["val_b"] == 2.0
