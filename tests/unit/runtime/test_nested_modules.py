"""A `LightningModule` inside another: it logs, and knows the run, as the outer one does."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from small_runs import Small, fitted, loader, quiet

from lightgen_runtime import LightningModule


class Inner(LightningModule):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(width, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.layer(batch).pow(2).mean()
        self.log("inner_loss", loss, on_epoch=True, prog_bar=True)
        return loss

    def note(self, name: str) -> None:
        self.log(name, 3.0)


class Outer(Small):
    def __init__(self) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.inner = Inner()
        self.more = torch.nn.ModuleList([Inner(), torch.nn.Sequential(Inner())])

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.more[0].note("in_a_list")
        self.more[1][0].note("deep")
        return self.inner.training_step(batch, batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        self.inner.note("val")

    def on_train_epoch_end(self) -> None:
        self.inner.note("of_the_epoch")


def test_what_a_nested_module_logs_goes_to_the_running_hook() -> None:
    trainer = fitted(Outer())
    assert set(trainer.callback_metrics) == {
        "inner_loss",
        "inner_loss_step",
        "inner_loss_epoch",
        "in_a_list",
        "deep",
        "val",
        "of_the_epoch",
    }
    assert set(trainer.progress_bar_metrics) == {"inner_loss_step", "inner_loss_epoch"}


def test_nested_module_made_late_logs_too() -> None:
    class Late(Outer):
        def configure_model(self) -> None:
            self.late = Inner()

        def on_train_epoch_end(self) -> None:
            self.late.note("late")
            assert self.late.trainer is self.trainer

    assert fitted(Late()).callback_metrics["late"] == 3.0


def test_nested_module_reaches_the_run() -> None:
    seen: list[Any] = []

    class Asking(Outer):
        def on_train_epoch_end(self) -> None:
            inner = self.inner
            seen.extend([inner.trainer, inner.global_step, inner.current_epoch])
            seen.append(inner.optimizers() is self.optimizers())

    trainer = fitted(Asking())
    assert seen == [trainer, 4, 0, True]


def test_checkpoint_holds_the_outer_hyperparameters_only(tmp_path: Any) -> None:
    trainer = fitted(Outer())
    trainer.save_checkpoint(tmp_path / "outer.ckpt")
    again = Outer.load_from_checkpoint(tmp_path / "outer.ckpt")
    assert again.inner.hparams == {"width": 4}
    assert again.hparams == {}


def test_nested_module_warns_after_the_run() -> None:
    module = Outer()
    fitted(module)
    with pytest.warns(UserWarning, match=r"Inner is not attached.*nor part of"):
        module.inner.note("never")


def test_copy_of_a_nested_module_is_free_of_the_run() -> None:
    copies: list[Inner] = []

    class Copying(Outer):
        def on_train_start(self) -> None:
            copies.append(copy.deepcopy(self.inner))

    fitted(Copying())
    with pytest.raises(RuntimeError, match="not attached"):
        _ = copies[0].trainer


def test_inner_module_can_be_trained_by_itself_afterwards() -> None:
    class Own(Inner):
        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

    outer = Outer()
    outer.inner = Own()
    fitted(outer)
    trainer = quiet()
    trainer.fit(outer.inner, loader())
    assert outer.inner.trainer is trainer
    assert "inner_loss" in trainer.callback_metrics
