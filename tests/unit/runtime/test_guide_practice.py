"""Attributes, hooks, best practices and patterns of the LightningModule guide.

Continues `test_guide_methods.py`: each docstring names, in English, the section that the
test checks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import Small, fitted, loader, numbers, quiet, variant
from torch import nn
from torch.utils.data import DataLoader

import lightgen_runtime as L


class Net(L.LightningModule):
    """The example of save_hyperparameters."""

    def __init__(self, learning_rate, hidden_dim, dropout=0.0):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(4, hidden_dim), nn.Dropout(dropout))

    def training_step(self, batch, batch_idx):
        return self.net(batch).pow(2).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.learning_rate)


# ---- Main attributes ----


def test_attributes_of_the_table() -> None:
    """Main attributes: each of them, read in every step."""
    seen = []

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        seen.append((self.current_epoch, self.global_step))
        assert self.device == torch.device("cpu")
        assert (self.global_rank, self.local_rank) == (0, 0)
        assert self.automatic_optimization is True
        assert self.trainer.lightning_module is self
        assert self.hparams == {}
        return self(batch).mean()

    fitted(variant(training_step=training_step), max_epochs=2)
    assert seen == [(step // 4, step) for step in range(8)]


# ---- Manual optimization ----


class GANModel(L.LightningModule):
    """The example, with networks and losses filled in."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.generator = nn.Linear(4, 4)
        self.discriminator = nn.Linear(4, 1)

    def compute_generator_loss(self, batch):
        return -self.discriminator(self.generator(batch)).mean()

    def compute_discriminator_loss(self, batch):
        fake = self.discriminator(self.generator(batch).detach())
        return fake.mean() - self.discriminator(batch).mean()

    def training_step(self, batch, batch_idx):
        opt_g, opt_d = self.optimizers()

        opt_g.zero_grad()
        g_loss = self.compute_generator_loss(batch)
        self.manual_backward(g_loss)
        opt_g.step()

        opt_d.zero_grad()
        d_loss = self.compute_discriminator_loss(batch)
        self.manual_backward(d_loss)
        opt_d.step()

        self.log_dict({"g_loss": g_loss, "d_loss": d_loss})

    def configure_optimizers(self):
        opt_g = torch.optim.Adam(self.generator.parameters(), lr=0.0002)
        opt_d = torch.optim.Adam(self.discriminator.parameters(), lr=0.0002)
        return [opt_g, opt_d]


def test_manual_optimization_trains_both_networks() -> None:
    """Manual optimization, GAN; configure_optimizers, form 4: several optimizers."""
    torch.manual_seed(0)
    model = GANModel()
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    trainer = quiet()
    trainer.fit(model, loader())
    unchanged = {n for n, w in model.named_parameters() if torch.equal(w, before[n])}
    # The difference of two means does not depend on the discriminator's own bias.
    assert unchanged <= {"discriminator.bias"}
    assert trainer.global_step == 8
    assert {"g_loss", "d_loss"} <= set(trainer.callback_metrics)


# ---- Lifecycle hooks ----


def test_setup_and_teardown_know_their_stage() -> None:
    """setup, teardown: at start and end of fit, validate, test and predict."""
    calls = []

    def setup(self: Any, stage: str) -> None:
        calls.append(("setup", stage))

    def teardown(self: Any, stage: str) -> None:
        calls.append(("teardown", stage))

    model = variant(setup=setup, teardown=teardown)
    trainer = fitted(model)
    trainer.validate(model, loader(), verbose=False)
    trainer.test(model, loader(), verbose=False)
    trainer.predict(model, loader())
    stages = ("fit", "validate", "test", "predict")
    assert calls == [(hook, s) for s in stages for hook in ("setup", "teardown")]


def test_setup_may_make_the_data_of_its_stage() -> None:
    """setup, example: datasets for the stage, before the loaders are asked for."""

    def setup(self: Any, stage: str) -> None:
        if stage == "fit":
            self.train_dataset = numbers(6)
        elif stage == "test":
            self.test_dataset = numbers(2)

    model = variant(
        setup=setup,
        train_dataloader=lambda self: DataLoader(self.train_dataset, 2),
        test_dataloader=lambda self: DataLoader(self.test_dataset, 2),
    )
    trainer = quiet()
    trainer.fit(model)
    assert trainer.global_step == 3
    trainer.test(model, verbose=False)


@pytest.mark.parametrize("stage", ["train", "validation", "test"])
def test_epoch_hooks_enclose_the_steps(stage: str) -> None:
    """Epoch boundaries: on_{train,validation,test}_epoch_{start,end}."""
    calls: list[str] = []
    step = "training_step" if stage == "train" else f"{stage}_step"

    def noted(name: str) -> Any:
        def hook(self: Any, *args: Any) -> Any:
            calls.append(name)
            return getattr(Small, name)(self, *args)

        return hook

    start, end = f"on_{stage}_epoch_start", f"on_{stage}_epoch_end"
    model = variant(**{name: noted(name) for name in (start, end, step)})
    trainer = quiet(num_sanity_val_steps=0)
    trainer.fit(model, loader(4), loader(4))
    if stage == "test":
        trainer.test(model, loader(4), verbose=False)
    assert calls == [start, step, step, end]


def test_on_train_epoch_end_example() -> None:
    """Epoch boundaries, example: a metric over outputs collected by hand."""

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        outputs = self(batch)
        self.training_step_outputs.append(outputs.detach())
        return outputs.pow(2).mean()

    def on_train_epoch_end(self: Any) -> None:
        all_preds = torch.cat(self.training_step_outputs)
        self.log("epoch_metric", float(len(all_preds)))
        self.training_step_outputs.clear()

    model = variant(
        training_step=training_step,
        on_train_epoch_end=on_train_epoch_end,
        training_step_outputs=[],
    )
    assert fitted(model, max_epochs=2).callback_metrics["epoch_metric"] == 8


def test_gradient_hooks_enclose_the_backward_pass() -> None:
    """Gradient hooks: before backward without, after it with gradients; then the step."""
    calls = []

    def on_before_backward(self: Any, loss: Any) -> None:
        calls.append(("before", loss.requires_grad, self.layer.weight.grad is None))

    def on_after_backward(self: Any) -> None:
        calls.append(("after", self.global_step, self.layer.weight.grad is None))

    model = variant(
        on_before_backward=on_before_backward, on_after_backward=on_after_backward
    )
    quiet().fit(model, loader(4))
    assert calls == [
        ("before", True, True),
        ("after", 0, False),
        ("before", True, True),
        ("after", 1, False),
    ]


def test_gradient_norm_example() -> None:
    """Gradient hooks, example: clip by hand and log the norm before."""

    def on_after_backward(self: Any) -> None:
        norm = torch.nn.utils.clip_grad_norm_(self.parameters(), max_norm=1.0)
        self.log("grad_norm", norm)

    trainer = fitted(variant(on_after_backward=on_after_backward))
    assert trainer.callback_metrics["grad_norm"] > 0


def test_checkpoint_hooks_add_and_read_state(tmp_path: Path) -> None:
    """Checkpoint hooks: on_save_checkpoint adds, on_load_checkpoint reads."""

    class Keeping(Small):
        custom_data = "default"

        def on_save_checkpoint(self, checkpoint):
            checkpoint["custom_state"] = self.custom_data

        def on_load_checkpoint(self, checkpoint):
            self.custom_data = checkpoint.get("custom_state", "absent")

    model = Keeping()
    trainer = fitted(model)
    model.custom_data = "mine"
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    assert Keeping.load_from_checkpoint(tmp_path / "x.ckpt").custom_data == "mine"


# ---- Best practices ----


def test_batches_and_module_are_on_one_device() -> None:
    """Device independence: batches arrive on self.device, which follows the module."""
    placed = []

    def transfer(self: Any, batch: Any, device: Any, dataloader_idx: int) -> Any:
        placed.append(device)
        return batch.to(device)

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        assert batch.device == self.device
        return self(batch.to(self.device)).mean()

    fitted(variant(training_step=training_step, transfer_batch_to_device=transfer))
    assert set(placed) == {torch.device("cpu")}
    assert Small().to("meta").device == torch.device("meta")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_module_trains_on_a_gpu_without_saying_so() -> None:
    """Device independence: the same module, no .cuda() anywhere."""
    seen = []

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        seen.append(
            (batch.device.type, self.device.type, self.layer.weight.device.type)
        )
        loss = self(batch).pow(2).mean()
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss

    trainer = fitted(variant(training_step=training_step), accelerator="gpu")
    assert set(seen) == {("cuda", "cuda", "cuda")}
    assert trainer.callback_metrics["loss_epoch"].device.type == "cuda"


def test_shuffling_loader_needs_no_sampler() -> None:
    """Distributed safety: DataLoader(dataset, shuffle=True) is all a user writes."""
    seen = []

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        seen.append(batch)
        return self(batch).mean()

    quiet().fit(variant(training_step=training_step), loader(shuffle=True))
    ours = sorted(torch.cat(seen)[:, 0].tolist())
    assert ours == sorted(numbers()[:, 0].tolist())


def test_metric_aggregation_equals_the_mean_over_all_samples() -> None:
    """Metric aggregation: self.log alone, exact over batches of unequal size."""

    def validation_step(self: Any, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", batch.mean())

    model = variant(validation_step=validation_step)
    (results,) = quiet().validate(model, loader(7, 3), verbose=False)
    assert results["val_loss"] == pytest.approx(float(numbers(7).mean()), rel=1e-6)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    trainer = quiet()
    trainer.fit(Net(learning_rate=0.1, hidden_dim=3), loader())
    trainer.save_checkpoint(tmp_path / "checkpoint.ckpt")
    return tmp_path / "checkpoint.ckpt"


def test_hyperparameter_tracking_reloads_a_model(checkpoint: Path) -> None:
    """Hyperparameter tracking: reloading needs the path alone."""
    model = Net.load_from_checkpoint(str(checkpoint))
    assert model.hparams.learning_rate == 0.1


def test_every_validation_sample_is_evaluated_once() -> None:
    """Validation placement: on one device, each sample once."""
    seen = []

    def validation_step(self: Any, batch: Any, batch_idx: int) -> None:
        seen.append(batch)

    model = variant(validation_step=validation_step)
    quiet().validate(model, loader(7, 3), verbose=False)
    assert torch.equal(torch.cat(seen), numbers(7))


# ---- Loading from a checkpoint ----


def test_load_from_checkpoint_with_and_without_overrides(checkpoint: Path) -> None:
    """Loading: saved values, overridden values, then inference."""
    saved = Net.load_from_checkpoint(checkpoint)
    assert (saved.hparams.learning_rate, saved.hparams.hidden_dim) == (0.1, 3)
    changed = Net.load_from_checkpoint(checkpoint, learning_rate=0.0001)
    assert (changed.hparams.learning_rate, changed.hparams.hidden_dim) == (0.0001, 3)
    changed.eval()
    saved.eval()
    assert torch.equal(changed.net(numbers()), saved.net(numbers()))


# ---- Common patterns ----


def test_gradient_accumulation_steps_once_in_four() -> None:
    """Gradient accumulation: Trainer(accumulate_grad_batches=4)."""
    accumulated, whole = Small(), Small()
    trainer = quiet(accumulate_grad_batches=4)
    trainer.fit(accumulated, loader())
    assert trainer.global_step == 1
    quiet().fit(whole, loader(batch_size=8))
    assert torch.allclose(accumulated.layer.weight, whole.layer.weight, atol=1e-7)


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_gradient_clipping_bounds_gradients(algorithm: str) -> None:
    """Gradient clipping: gradient_clip_val and gradient_clip_algorithm."""
    limit = 0.05
    seen = []

    class Watched(torch.optim.SGD):
        def step(self, closure=None):
            grads = [p.grad for group in self.param_groups for p in group["params"]]
            flat = torch.cat([grad.flatten() for grad in grads])
            seen.append(float(flat.norm() if algorithm == "norm" else flat.abs().max()))
            return super().step(closure)

    model = variant(configure_optimizers=lambda self: Watched(self.parameters(), 0.1))
    fitted(model, gradient_clip_val=limit, gradient_clip_algorithm=algorithm)
    assert len(seen) == 4
    assert max(seen) == pytest.approx(limit, rel=1e-3)


@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed", "32-true"])
@pytest.mark.filterwarnings("ignore:.*on a CPU. computing in bfloat16:UserWarning")
def test_mixed_precision_trains(precision: str) -> None:
    """Mixed precision: Trainer(precision=...) with each of the three names."""
    outputs, losses = [], []

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        output = self(batch)
        outputs.append(output.dtype)
        losses.append(output.float().pow(2).mean())
        return losses[-1]

    model = variant(training_step=training_step)
    before = model.layer.weight.detach().clone()
    trainer = fitted(model, precision=precision, max_epochs=5)
    assert losses[-1] < losses[0] / 2
    assert not torch.equal(model.layer.weight, before)
    assert model.layer.weight.dtype == torch.float32
    # On a CPU, as here, both mixed precisions compute in bfloat16.
    expected = torch.float32 if precision == "32-true" else torch.bfloat16
    assert set(outputs) == {expected}
    assert trainer.validate(model, loader(4), verbose=False)[0]["val_loss"] < 1


def test_warm_up_follows_the_estimated_steps() -> None:
    """Learning-rate warm-up: OneCycleLR over trainer.estimated_stepping_batches."""
    rates = []

    def configure_optimizers(self: Any) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=0.001)
        scheduler = {
            "scheduler": torch.optim.lr_scheduler.OneCycleLR(
                optimizer,
                max_lr=0.01,
                total_steps=self.trainer.estimated_stepping_batches,
            ),
            "interval": "step",
        }
        return [optimizer], [scheduler]

    def on_train_batch_start(self: Any, batch: Any, batch_idx: int) -> None:
        rates.append(self.optimizers().param_groups[0]["lr"])

    model = variant(
        configure_optimizers=configure_optimizers,
        on_train_batch_start=on_train_batch_start,
    )
    trainer = fitted(model, max_epochs=5)
    assert trainer.estimated_stepping_batches == len(rates) == 20
    assert max(rates) == pytest.approx(0.01, rel=0.02)
    assert rates[0] < max(rates) > rates[-1]
