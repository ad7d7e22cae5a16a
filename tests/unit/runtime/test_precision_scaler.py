"""Scaled losses: overflows, skipped steps, several optimizers, resuming.

The scaler is the one that torch has for the CPU, and the overflows are real.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from resuming import assert_resumes
from small_runs import Small, loader, quiet, variant
from torch.amp import GradScaler
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import LambdaLR
from torch.utils._python_dispatch import TorchDispatchMode

from lightgen_runtime import Callback, LightningModule, Trainer
from lightgen_runtime.callbacks import FiniteLoss
from lightgen_runtime.plugins import MixedPrecision
from lightgen_runtime.tuner import Tuner
from lightgen_runtime.utilities.exceptions import MisconfigurationException

OVERFLOW = 1e38


def scaled(init_scale: float = 2.0**8, **settings: Any) -> MixedPrecision:
    scaler = GradScaler("cpu", init_scale=init_scale, **settings)
    return MixedPrecision("16-mixed", "cpu", scaler=scaler)


def fit(module: LightningModule, **flags: Any) -> Trainer:
    trainer = quiet(**{"plugins": scaled(), **flags})
    trainer.fit(module, loader())
    return trainer


def overflowing(at: tuple[int, ...], **members: Any) -> Small:
    """Return a module whose gradient overflows in these batches of an epoch."""

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        loss = self(batch).float().pow(2).mean()
        self.log("loss", loss.detach())
        return loss * (OVERFLOW if batch_idx in at else 1.0)

    return variant(training_step=training_step, **members)


# ---- skipped steps ----


def test_overflow_changes_no_weight_and_halves_the_scale() -> None:
    weights, scales = [], []

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            weights.append(pl_module.layer.weight.detach().clone())
            scales.append(trainer.scaler.get_scale())

    trainer = fit(overflowing((1,)), callbacks=Watch())
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])
    assert scales == [2.0**8, 2.0**7, 2.0**7, 2.0**7]
    assert trainer.global_step == 4


def test_fit_without_an_overflow_ends_as_without_a_scaler() -> None:
    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        return self(batch).float().pow(2).mean()

    flags = {"gradient_clip_val": 0.5, "accumulate_grad_batches": 2, "max_epochs": 2}
    with_scaler = variant(training_step=training_step)
    without = variant(training_step=training_step)
    fit(with_scaler, **flags)
    no_scaler = MixedPrecision("16-mixed", "cpu", GradScaler("cpu", enabled=False))
    trainer = fit(without, plugins=no_scaler, **flags)
    assert torch.allclose(with_scaler.layer.weight, without.layer.weight, atol=1e-4)
    assert trainer._run is not None
    assert trainer._run.scaling is None  # a scaler that is off costs nothing


def test_scheduler_of_epochs_does_not_wait() -> None:
    def configure_optimizers(self: Any) -> Any:
        optimizer = SGD(self.parameters(), lr=1.0)
        return [optimizer], [LambdaLR(optimizer, lambda count: 0.5**count)]

    module = overflowing((3,), configure_optimizers=configure_optimizers)
    trainer = fit(module, max_epochs=2)
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.25


def test_overflowed_gradient_is_no_broken_loss() -> None:
    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        weight = self.layer.weight.sum()
        return weight + (1e38 * (weight - weight.detach()) if batch_idx == 1 else 0.0)

    module = variant(training_step=training_step)
    trainer = fit(module, callbacks=FiniteLoss(every_n_steps=1))
    assert trainer.scaler is not None
    assert trainer.scaler.get_scale() == 2.0**7


def test_step_takes_no_host_sync_but_the_scalers_own() -> None:
    class Syncs(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.count = 0

        def __torch_dispatch__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            self.count += function.name() == "aten::_local_scalar_dense"
            return function(*args, **(kwargs or {}))

    def syncs(fused: bool) -> int:
        def configure_optimizers(self: Any) -> Any:
            optimizer = SGD(self.parameters(), lr=0.1, fused=fused)
            scheduler = LambdaLR(optimizer, lambda count: 1.0)
            return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

        module = overflowing((1,), configure_optimizers=configure_optimizers)
        module.log = lambda *args, **kwargs: None
        with Syncs() as mode:
            fit(module)
        return mode.count - 1  # the loader's, for its seed

    assert syncs(fused=False) == 4  # one a step
    assert syncs(fused=True) == 0


def test_scheduler_of_a_fused_optimizer_does_not_wait() -> None:
    def configure_optimizers(self: Any) -> Any:
        optimizer = Adam(self.parameters(), lr=1.0, fused=True)
        scheduler = LambdaLR(optimizer, lambda count: 0.5**count)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    module = overflowing((1,), configure_optimizers=configure_optimizers)
    trainer = fit(module)
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.5**4


def test_scaled_fit_without_an_optimizer_changes_nothing() -> None:
    module = overflowing((), configure_optimizers=lambda self: None)
    before = module.layer.weight.detach().clone()
    with pytest.warns(UserWarning, match="without an optimizer"):
        trainer = fit(module)
    assert torch.equal(module.layer.weight, before)
    assert trainer.global_step == 4


# ---- what cannot be scaled ----


@pytest.mark.parametrize("automatic", [True, False])
def test_optimizer_that_evaluates_its_loss_is_refused_before_training(
    automatic: bool,
) -> None:
    def configure_optimizers(self: Any) -> Any:
        return torch.optim.LBFGS(self.parameters())

    module = overflowing((), configure_optimizers=configure_optimizers)
    module.automatic_optimization = automatic
    with pytest.raises(MisconfigurationException, match=r"LBFGS.*'bf16-mixed'"):
        fit(module)


def test_fused_optimizer_with_clipping_is_refused() -> None:
    def configure_optimizers(self: Any) -> Any:
        return Adam(self.parameters(), fused=True)

    module = overflowing((), configure_optimizers=configure_optimizers)
    with pytest.raises(MisconfigurationException, match=r"Adam.*fused=False"):
        fit(module, gradient_clip_val=1.0)


def test_gradients_by_hand_that_were_not_scaled_are_refused() -> None:
    def training_step(self: Any, batch: Any, batch_idx: int) -> None:
        self(batch).float().pow(2).mean().backward()
        self.optimizers().step()

    module = variant(training_step=training_step)
    module.automatic_optimization = False
    with pytest.raises(MisconfigurationException, match=r"SGD.*manual_backward"):
        fit(module)


# ---- several optimizers ----


class Two(Small):
    """Two layers, each with an optimizer and a scheduler that counts its steps."""

    def __init__(self, factors: dict[str, list[Any]]) -> None:
        super().__init__()
        self.other = torch.nn.Linear(4, 1)
        self.factors = factors
        self.before_step: list[tuple[str, float]] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        losses = {}
        for name, layer in (("layer", self.layer), ("other", self.other)):
            factor = self.factors[name][batch_idx]
            loss = layer(batch).float().pow(2).mean()
            losses[name] = None if factor is None else loss * factor
        return losses

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        layers = {self.layer.weight: "layer", self.other.weight: "other"}
        weight = optimizer.param_groups[0]["params"][0]
        size = float("nan") if weight.grad is None else float(weight.grad.norm())
        self.before_step.append((layers[weight], size))

    def configure_optimizers(self) -> Any:
        made = {}
        for name in ("layer", "other"):
            optimizer = SGD(getattr(self, name).parameters(), lr=1e-3)
            scheduler = LambdaLR(optimizer, lambda count: 1.0)
            config = {"scheduler": scheduler, "interval": "step", "name": name}
            made[name] = {"optimizer": optimizer, "lr_scheduler": config}
        return made


def counts(trainer: Trainer) -> dict[str | None, int]:
    return {c.name: c.scheduler.last_epoch for c in trainer.lr_scheduler_configs}


def test_named_optimizer_that_overflows_waits_alone() -> None:
    module = Two({"layer": [1.0, OVERFLOW, 1.0, 1.0], "other": [1.0, 1.0, 1.0, 1.0]})
    trainer = fit(module)
    assert counts(trainer) == {"layer": 3, "other": 4}
    assert trainer.global_step == 4
    assert trainer.scaler is not None
    assert trainer.scaler.get_scale() == 2.0**7


def test_named_optimizers_step_on_true_gradients() -> None:
    def gradients(**flags: Any) -> list[tuple[str, float]]:
        module = Two({"layer": [1.0] * 4, "other": [2.0] * 4})
        fit(module, **flags)
        return module.before_step

    off = MixedPrecision("16-mixed", "cpu", GradScaler("cpu", enabled=False))
    for ours, theirs in zip(gradients(), gradients(plugins=off), strict=True):
        assert ours[0] == theirs[0]
        assert ours[1] == pytest.approx(theirs[1], rel=1e-2)


def test_named_optimizers_without_a_loss_do_not_step() -> None:
    module = Two({"layer": [1.0, None, 1.0, None], "other": [None, None, 1.0, 1.0]})
    before = module.layer.weight.detach().clone()
    trainer = fit(module)
    assert not torch.equal(module.layer.weight, before)
    assert trainer.global_step == 4
    assert len(module.before_step) == 8


def test_gradients_clipped_by_hand_are_not_scaled_back_twice() -> None:
    norms = []

    def training_step(self: Any, batch: Any, batch_idx: int) -> None:
        first, second = self.optimizers()
        for optimizer, layer in ((first, self.layer), (second, self.other)):
            optimizer.zero_grad()
            self.manual_backward(layer(batch).float().pow(2).mean() * 9)
        for optimizer in (first, second):
            self.clip_gradients(optimizer, 0.5)
        for optimizer in (first, second):
            optimizer.step()

    def on_before_optimizer_step(self: Any, optimizer: Any) -> None:
        parameters = optimizer.param_groups[0]["params"]
        norms.append(float(torch.cat([p.grad.flatten() for p in parameters]).norm()))

    def configure_optimizers(self: Any) -> Any:
        self.other = torch.nn.Linear(4, 1)
        return [SGD(m.parameters(), lr=1e-3) for m in (self.layer, self.other)]

    module = variant(
        training_step=training_step,
        on_before_optimizer_step=on_before_optimizer_step,
        configure_optimizers=configure_optimizers,
    )
    module.automatic_optimization = False
    fit(module)
    assert norms == pytest.approx([0.5] * 8, rel=1e-3)


def test_optimizer_may_step_twice_in_a_batch_by_hand() -> None:
    def training_step(self: Any, batch: Any, batch_idx: int) -> None:
        for _ in range(2):
            self.optimizers().zero_grad()
            self.manual_backward(self(batch).float().pow(2).mean())
            self.optimizers().step()

    module = variant(training_step=training_step)
    module.automatic_optimization = False
    trainer = fit(module, plugins=scaled(growth_interval=100))
    assert trainer.global_step == 8
    assert trainer.scaler is not None
    assert trainer.scaler.state_dict()["_growth_tracker"] == 8


# ---- resuming and tuning ----


def per_step_scheduler(self: Any) -> Any:
    optimizer = SGD(self.parameters(), lr=0.1, momentum=0.9)
    scheduler = LambdaLR(optimizer, lambda count: 0.9**count)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
    return [optimizer], [
        {"scheduler": scheduler, "interval": "step", "frequency": 2},
        {"scheduler": plateau, "interval": "step", "monitor": "loss"},
    ]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_resumed_fit_with_overflows_is_the_same(
    accumulate: int, tmp_path: Path
) -> None:
    assert_resumes(
        lambda: overflowing((1, 2), configure_optimizers=per_step_scheduler),
        Callback,
        tmp_path / "x.ckpt",
        [
            *(("on_train_batch_end", count) for count in (1, 2, 3, 4, 8, 9)),
            ("on_validation_end", 2),
            ("on_train_epoch_end", 1),
        ],
        make_plugins=lambda: scaled(growth_interval=3),
        max_epochs=3,
        accumulate_grad_batches=accumulate,
        val_check_interval=2,
    )


def test_resumed_fit_of_named_optimizers_is_the_same(tmp_path: Path) -> None:
    factors = {
        "layer": [1.0, OVERFLOW, 1.0, 1.0, 1.0, 1.0],
        "other": [1.0, 1.0, 1.0, None, OVERFLOW, 1.0],
    }
    assert_resumes(
        lambda: Two(factors),
        Callback,
        tmp_path / "x.ckpt",
        [("on_train_batch_end", count) for count in (2, 3, 5)],
        make_plugins=lambda: scaled(growth_interval=3),
        max_epochs=2,
    )


def test_learning_rate_search_leaves_the_scaler_as_it_was() -> None:
    class Tunable(Small):
        def __init__(self) -> None:
            super().__init__()
            self.lr = 0.1

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self(batch).float().pow(2).mean()

        def configure_optimizers(self) -> Any:
            return SGD(self.parameters(), lr=self.lr)

    trainer = quiet(plugins=scaled(growth_interval=2))
    Tuner(trainer).lr_find(Tunable(), loader(), num_training=20, update_attr=False)
    assert trainer.scaler is not None
    assert trainer.scaler.get_scale() == 2.0**8


def test_state_of_a_finished_fit_is_saved_after_an_evaluation(tmp_path: Path) -> None:
    trainer = fit(overflowing((1,)))
    trainer.validate(trainer.lightning_module, loader(4), verbose=False)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    saved = torch.load(tmp_path / "x.ckpt", weights_only=True)
    assert saved["MixedPrecision"]["scale"] == 2.0**7
    assert saved["lightgen"]["scaling"] == {"skipped": [1], "last_skipped": [2]}


def test_profiler_sees_the_parts_of_a_scaled_step() -> None:
    from lightgen_runtime.profilers import SimpleProfiler

    profiler = SimpleProfiler()
    trainer = quiet(plugins=scaled(), profiler=profiler)
    trainer.fit(overflowing((1,)), loader())
    measured = Counter(
        {key: len(values) for key, values in profiler.recorded_durations.items()}
    )
    assert measured["[Strategy]SingleDeviceStrategy.backward"] == 4
    assert measured["[LightningModule]Variant.optimizer_step"] == 4
