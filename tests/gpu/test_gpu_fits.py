"""Fits on a CUDA device: where everything is, in which format, and what they wait for."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from gpu_runs import (
    BATCHES,
    DEVICE,
    DTYPES,
    Classifier,
    Ready,
    assert_same,
    data,
    loader,
    on_gpu,
    quiet,
    trained_by_hand,
)
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightgen_runtime import Callback, LightningModule
from lightgen_runtime.callbacks import DeviceStatsMonitor
from lightgen_runtime.loggers import CSVLogger
from lightgen_runtime.plugins import AsyncCheckpointIO, MixedPrecision

pytestmark = on_gpu


class Seed(Callback):
    """Seeds where the batches begin, as the loop by hand does."""

    def on_train_epoch_start(self, *_: Any) -> None:
        torch.manual_seed(1)


@pytest.mark.parametrize("precision", DTYPES)
def test_fit_is_the_loop_by_hand_bit_for_bit(precision: str) -> None:
    module = Classifier()
    trainer = quiet(precision=precision, callbacks=Seed())
    batches = Ready(loader())
    trainer.fit(module, batches)
    assert trainer.strategy.root_device == module.device == DEVICE
    by_hand = trained_by_hand(precision, batches, seed=1)
    assert_same(module.net.state_dict(), by_hand.state_dict())
    predicted = quiet(precision=precision).predict(module, loader())
    assert predicted is not None
    assert {p.device.type for p in predicted} == {"cpu"}
    assert {p.dtype for p in predicted} == {DTYPES[precision]}


def test_nothing_has_to_be_moved_by_hand() -> None:
    places: set[torch.device] = set()

    class Placed(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scale", torch.ones(1))

        def configure_model(self) -> None:
            self.head = nn.Linear(4, 4)

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            x, y = batch["nested"]
            places.update(t.device for t in (x, y, self.scale, self.head.weight))
            places.add(self.device)
            return self.head(self.net(x) * self.scale).pow(2).mean()

    batches = Ready({"nested": list(batch)} for batch in loader())
    module = Placed()
    trainer = quiet()
    trainer.fit(module, batches)
    assert places == {DEVICE}
    assert {p.device for p in module.parameters()} == {DEVICE}
    state = trainer.optimizers[0].state[module.head.weight]
    assert state["exp_avg"].device == DEVICE


def test_module_made_for_the_run_is_there_already() -> None:
    trainer = quiet(precision="bf16-true")
    with trainer.init_module():
        module = Classifier()
    weight = module.net[0].weight
    assert (weight.device, weight.dtype) == (DEVICE, torch.bfloat16)


def test_loss_that_overflows_in_16_bits_is_stepped_over() -> None:
    weights: list[Tensor] = []
    scales: list[float] = []

    class Overflowing(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            loss = super().training_step(batch, batch_idx)
            return loss * (1e38 if batch_idx == 2 else 1.0)

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            weights.append(pl_module.net[0].weight.detach().clone())
            scales.append(trainer.scaler.get_scale())

    scaler = torch.amp.GradScaler(DEVICE.type, init_scale=2.0**10)
    precision = MixedPrecision("16-mixed", DEVICE.type, scaler)
    trainer = quiet(plugins=precision, callbacks=Watch(), limit_train_batches=5)
    trainer.fit(Overflowing(), loader())
    assert scales == [2.0**10, 2.0**10, 2.0**9, 2.0**9, 2.0**9]
    changed = [not torch.equal(a, b) for a, b in pairwise(weights)]
    assert changed == [True, False, True, True]
    assert trainer.global_step == 5


def test_pinned_batches_arrive_whole_beside_a_busy_device() -> None:
    rows = torch.arange(40.0).repeat_interleave(1000).view(40, 1000)
    sums: list[Tensor] = []

    class Busy(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            (x,) = batch
            assert x.device == DEVICE
            sums.append(x.sum())
            heavy = torch.ones(2048, 2048, device=DEVICE)
            for _ in range(10):
                heavy = heavy @ heavy * 1e-4
            return self.net(x[:, :32]).pow(2).mean() + 0.0 * heavy.mean()

    pinned = DataLoader(TensorDataset(rows), batch_size=4, pin_memory=True)
    quiet(max_epochs=2).fit(Busy(), pinned)
    expected = [
        batch.sum() for (batch,) in DataLoader(TensorDataset(rows), batch_size=4)
    ]
    assert torch.equal(torch.stack(sums).cpu(), torch.stack(expected * 2))


def test_checkpoint_of_a_thread_holds_the_moment_it_was_asked_for(
    tmp_path: Path,
) -> None:
    kept: dict[str, Tensor] = {}

    class Save(Callback):
        def on_train_batch_end(
            self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            if batch_idx == 3:
                trainer.save_checkpoint(tmp_path / "x.ckpt")
                kept.update({k: v.clone() for k, v in pl_module.state_dict().items()})

    module = Classifier()
    quiet(plugins=AsyncCheckpointIO(), callbacks=Save()).fit(module, loader())
    saved = torch.load(tmp_path / "x.ckpt", weights_only=True)["state_dict"]
    assert_same(saved, {name: tensor.cpu() for name, tensor in kept.items()})
    assert not torch.equal(saved["net.0.weight"], module.net[0].weight.cpu())


def test_monitor_reports_the_memory_of_the_device(tmp_path: Path) -> None:
    trainer = quiet(
        logger=CSVLogger(tmp_path), callbacks=DeviceStatsMonitor(), log_every_n_steps=4
    )
    trainer.fit(Classifier(), loader())
    (metrics,) = tmp_path.rglob("metrics.csv")
    header = metrics.read_text(encoding="utf-8").splitlines()[0]
    assert "DeviceStatsMonitor.on_train_batch_end/allocated_bytes.all.current" in header


class Strict(Callback):
    """Lets no call of torch wait for the device in the steps between two reports."""

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last
        self.watched = 0

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == self.first:
            torch.cuda.set_sync_debug_mode("error")

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.watched += self.first <= batch_idx <= self.last
        if batch_idx == self.last:
            torch.cuda.set_sync_debug_mode("default")

    def on_exception(self, *_: Any) -> None:
        torch.cuda.set_sync_debug_mode("default")


WAYS = {
    "32-true": {},
    "clipped": {"gradient_clip_val": 1.0},
    "accumulated": {"accumulate_grad_batches": 2},
    "bf16-mixed": {"precision": "bf16-mixed"},
    "16-mixed": {"precision": "16-mixed"},
    "bf16-true": {"precision": "bf16-true"},
}


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("way", WAYS)
def test_steps_between_reports_wait_for_nothing(way: str, tmp_path: Path) -> None:
    class Fused(Classifier):
        def configure_optimizers(self) -> Any:
            # Only a fused one leaves out a step without telling the host.
            optimizer = torch.optim.AdamW(self.parameters(), lr=0.01, fused=True)
            schedule = torch.optim.lr_scheduler.LambdaLR(
                optimizer, lambda step: 0.9**step
            )
            return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    strict = Strict(2, 6)
    trainer = quiet(
        logger=CSVLogger(tmp_path), callbacks=strict, log_every_n_steps=8, **WAYS[way]
    )
    try:
        trainer.fit(Fused(), loader(pin_memory=True))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert strict.watched == 5


def test_memory_at_its_highest_is_that_of_a_loop_by_hand() -> None:
    width, rows, steps = 2048, 4096, 6

    def make() -> nn.Sequential:
        layers = [
            layer for _ in range(4) for layer in (nn.Linear(width, width), nn.ReLU())
        ]
        return nn.Sequential(*layers)

    class Wide(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = make()

        def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
            loss = self.net(batch).pow(2).mean()
            self.log("train_loss", loss, on_epoch=True)
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), lr=1e-3)

    two = [torch.randn(rows, width).pin_memory() for _ in range(2)]
    batches = Ready(two * (steps // 2))

    def by_hand() -> None:
        net = make().to(DEVICE)
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
        for batch in batches:
            batch = batch.to(DEVICE, non_blocking=True)
            loss = net(batch).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def peak(run: Any) -> int:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before

    hand = peak(by_hand)
    ours = peak(lambda: quiet().fit(Wide(), batches))
    # The copy of the next batch may begin before this one's memory is free.
    batch_bytes = rows * width * 4
    assert ours <= hand * 1.02 + batch_bytes, (ours / 2**20, hand / 2**20)


def test_all_stages_run_on_the_device() -> None:
    module, trainer = Classifier(), quiet()
    trainer.fit(module, loader(), loader())
    (validated,) = trainer.validate(module, loader())
    assert set(validated) == {"val_loss"}
    assert len(trainer.predict(module, loader()) or []) == BATCHES == len(data()) // 8
    assert module.device == DEVICE


def test_products_of_32_bits_are_rounded_where_it_is_asked_for() -> None:
    exact = torch.randn(512, 512, dtype=torch.float64, device=DEVICE)
    errors: dict[str | None, float] = {}
    settings: set[str] = set()

    def error_of(flag: str | None) -> float:
        class Product(Classifier):
            def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
                settings.add(torch.backends.cuda.matmul.fp32_precision)
                product = exact.float() @ exact.float()
                return (product - exact @ exact).abs().max()

        (found,) = quiet(matmul_precision=flag).predict(Product(), Ready([[1]])) or []
        return float(found)

    before = torch.backends.cuda.matmul.fp32_precision
    for flag in ("highest", "high", None):
        errors[flag] = error_of(flag)
        assert torch.backends.cuda.matmul.fp32_precision == before
    assert settings == {"ieee", "tf32", before}
    assert errors["high"] > 10 * errors["highest"]
    assert errors[None] == errors["highest"]
