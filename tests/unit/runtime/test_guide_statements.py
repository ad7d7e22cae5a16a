"""Statements of the LightningModule guide that have no example of their own.

Continues `test_guide_methods.py`: each docstring names, in English, the section that the
test checks.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import Small, fitted, loader, numbers, quiet, variant
from torch import nn

import lightgen_runtime as L
from lightgen_runtime.strategies import SingleDeviceStrategy

# ---- Overview ----


def test_module_is_plain_pytorch() -> None:
    """Overview: still plain PyTorch, and usable without any trainer."""
    model = Small()
    assert isinstance(model, nn.Module)
    assert list(model.state_dict()) == ["layer.weight", "layer.bias"]
    assert [name for name, _ in model.named_modules()] == ["", "layer"]
    optimizer = model.configure_optimizers()
    before = model.training_step(numbers(), 0)
    before.backward()
    optimizer.step()
    assert model.training_step(numbers(), 0).item() < before.item()
    assert torch.equal(nn.Sequential(model)(numbers()), model(numbers()))


def test_default_trainer_does_the_chores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Overview: the trainer does the chores: logs, checkpoints, placement."""
    monkeypatch.chdir(tmp_path)
    trainer = L.Trainer(max_epochs=1, accelerator="cpu")

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        loss = self(batch).pow(2).mean()
        self.log("loss", loss, on_epoch=True)
        return loss

    trainer.fit(variant(training_step=training_step), loader(), loader(4))
    written = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert {".csv", ".ckpt"} <= written


def test_user_may_override_every_part_of_the_step() -> None:
    """Overview: full control: each part of the automatic step can be one's own."""
    calls: Counter[str] = Counter()

    def counted(name: str) -> Any:
        def hook(self: Any, *args: Any, **kwargs: Any) -> Any:
            calls[name] += 1
            return getattr(Small, name)(self, *args, **kwargs)

        return hook

    def configure_optimizers(self: Any) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    names = (
        "optimizer_step",
        "optimizer_zero_grad",
        "backward",
        "configure_gradient_clipping",
        "lr_scheduler_step",
        "transfer_batch_to_device",
        "forward",
    )
    model = variant(
        configure_optimizers=configure_optimizers, **{n: counted(n) for n in names}
    )
    quiet().fit(model, loader())
    assert calls == dict.fromkeys(names, 4)


# ---- Basic methods ----


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_automatic_step_is_that_of_a_loop_by_hand(momentum: float) -> None:
    """training_step: forward, backward, step and zeroing, to the last bit."""

    def configure_optimizers(self: Any) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=momentum)

    model = variant(configure_optimizers=configure_optimizers)
    by_hand = variant(configure_optimizers=configure_optimizers)
    fitted(model, max_epochs=3)
    optimizer = by_hand.configure_optimizers()
    for _ in range(3):
        for batch_idx, batch in enumerate(loader()):
            optimizer.zero_grad()
            by_hand.training_step(batch, batch_idx).backward()
            optimizer.step()
    assert torch.equal(model.layer.weight, by_hand.layer.weight)
    assert torch.equal(model.layer.bias, by_hand.layer.bias)


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_evaluation_steps_are_given_batches_and_their_index(stage: str) -> None:
    """validation_step, test_step, predict_step, parameters: the batch and its index."""
    seen = []

    def step(self: Any, batch: Any, batch_idx: int) -> None:
        assert not torch.is_grad_enabled()
        assert not self.training
        seen.append((batch_idx, batch))

    name = {"validate": "validation_step"}.get(stage, f"{stage}_step")
    getattr(quiet(), stage)(variant(**{name: step}), loader(7, 3))
    assert [index for index, _ in seen] == [0, 1, 2]
    assert torch.equal(torch.cat([batch for _, batch in seen]), numbers(7))


@pytest.mark.parametrize("made", [{"a": [1]}, "text", 3, (None, 1.5)])
def test_predictions_may_have_any_format(made: Any) -> None:
    """predict_step, returns: any format, handed back as it is."""
    model = variant(predict_step=lambda self, batch, batch_idx: made)
    assert quiet().predict(model, loader(4)) == [made, made]


# ---- Logging and metrics ----


@pytest.mark.parametrize("value", [2, 2.0, True, torch.tensor(2.0), torch.tensor([2])])
def test_log_takes_tensors_and_numbers(value: Any) -> None:
    """log, value: a tensor or a number, reported as a tensor."""

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        self.log("value", value, on_step=True, on_epoch=True)
        return self(batch).mean()

    metrics = fitted(variant(training_step=training_step)).callback_metrics
    for key in ("value_step", "value_epoch"):
        assert isinstance(metrics[key], torch.Tensor)
        assert float(metrics[key]) == float(value)


def test_progress_bar_shows_what_it_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """log, prog_bar: the text of the bar has the metric that asks for it, and no other."""

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        loss = self(batch).mean()
        self.log("shown_metric", 0.125, prog_bar=True)
        self.log("other_metric", 0.125)
        return loss

    fitted(variant(training_step=training_step), enable_progress_bar=True)
    written = "".join(capsys.readouterr())
    assert "shown_metric" in written
    assert "0.125" in written
    assert "other_metric" not in written


# ---- Main attributes ----


def test_global_step_counts_optimizer_steps() -> None:
    """Main attributes, global_step: optimizer steps, not batches, over all epochs."""
    seen = []

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        seen.append(self.global_step)
        return self(batch).mean()

    trainer = fitted(
        variant(training_step=training_step), accumulate_grad_batches=2, max_epochs=2
    )
    assert seen == [0, 0, 1, 1, 2, 2, 3, 3]
    assert trainer.global_step == 4


# ---- Lifecycle hooks ----


@pytest.mark.parametrize("fails", [False, True])
def test_setup_comes_first_and_teardown_last(fails: bool) -> None:
    """setup, teardown: around everything else, also around an error."""
    calls: list[str] = []

    def noted(name: str) -> Any:
        return lambda self, *args, **kwargs: calls.append(name)

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        calls.append("step")
        if fails:
            raise ValueError("broken")
        return self(batch).mean()

    names = ("setup", "on_fit_start", "on_train_end", "on_fit_end", "teardown")
    model = variant(
        training_step=training_step, **{name: noted(name) for name in names}
    )
    if fails:
        with pytest.raises(ValueError, match="broken"):
            quiet().fit(model, loader(2))
        assert calls == ["setup", "on_fit_start", "step", "teardown"]
    else:
        quiet().fit(model, loader(2))
        inner = ["on_fit_start", "step", "on_train_end", "on_fit_end"]
        assert calls == ["setup", *inner, "teardown"]


def test_epoch_hooks_are_called_in_each_epoch() -> None:
    """Epoch boundaries: once in each epoch, validation inside the training epoch."""
    calls = []

    def noted(name: str) -> Any:
        return lambda self: calls.append((self.current_epoch, name))

    names = [
        f"on_{stage}_epoch_{end}"
        for stage in ("train", "validation")
        for end in ("start", "end")
    ]
    model = variant(**{name: noted(name) for name in names})
    fitted(model, max_epochs=3, num_sanity_val_steps=0)
    order = (names[0], names[2], names[3], names[1])
    assert calls == [(epoch, name) for epoch in range(3) for name in order]


def test_gradient_hooks_also_enclose_a_manual_backward() -> None:
    """Gradient hooks: around manual_backward as around the automatic one."""
    calls = []

    def training_step(self: Any, batch: Any, batch_idx: int) -> None:
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(self(batch).pow(2).mean())
        optimizer.step()

    def noted(name: str) -> Any:
        return lambda self, *args: calls.append((name, self.layer.weight.grad is None))

    names = ("on_before_backward", "on_after_backward", "on_before_optimizer_step")
    model = variant(training_step=training_step, **{n: noted(n) for n in names})
    model.automatic_optimization = False
    quiet().fit(model, loader(4))
    assert calls == [(names[0], True), (names[1], False), (names[2], False)] * 2


# ---- Best practices ----


def test_module_trains_on_any_device_without_saying_so() -> None:
    """Device independence: on a device that is everywhere, and is not the CPU."""
    meta = torch.device("meta")
    seen = []

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        seen.append((batch.device, self.device, self.layer.weight.device))
        return self(batch).pow(2).mean()

    trainer = L.Trainer(
        strategy=SingleDeviceStrategy(meta),
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(variant(training_step=training_step), loader())
    assert seen == [(meta, meta, meta)] * 4
