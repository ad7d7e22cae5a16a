"""A run that goes on with other settings: what is restored, what is told, what is refused."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import assert_says, loader, message_of, quiet, variant
from torch.optim import SGD, Adam, AdamW
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)

from lightgen_runtime import Callback
from lightgen_runtime.optim import CombinedOptimizer

Configure = Callable[[Any], Any]
BATCHES = 4


def stepwise(make: Callable[[Any], Any], lr: float = 0.1) -> Configure:
    """Return a `configure_optimizers` with a scheduler that steps after each batch."""

    def configure(self: Any) -> Any:
        optimizer = SGD(self.parameters(), lr=lr, momentum=0.9)
        return [optimizer], [{"scheduler": make(optimizer), "interval": "step"}]

    return configure


class Rates(Callback):
    """Notes the rate of each batch."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
        self.seen.append(float(trainer.optimizers[0].param_groups[0]["lr"]))


def fit(
    configure: Configure, epochs: int, path: Path | None = None
) -> tuple[Any, list[float]]:
    """Train; return the trainer and the rates."""
    rates = Rates()
    trainer = quiet(max_epochs=epochs, callbacks=rates)
    trainer.fit(variant(configure_optimizers=configure), loader(), ckpt_path=path)
    return trainer, rates.seen


def resumed(
    tmp_path: Path, before: Configure, after: Configure, epochs: int = 2
) -> tuple[Any, list[float]]:
    """Train one epoch with one configuration, go on with another."""
    trainer, _ = fit(before, 1)
    trainer.save_checkpoint(path := tmp_path / "some.ckpt")
    return fit(after, epochs, path)


def plain(kind: type[Any], **options: Any) -> Configure:
    return lambda self: kind(self.parameters(), **options)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Return a function that returns the lines about changed settings."""
    caplog.set_level(logging.INFO, "lightgen_runtime")

    def lines() -> list[str]:
        texts = [record.getMessage() for record in caplog.records]
        return sorted({text for text in texts if "setting counts" in text})

    return lines


def test_changed_options_count_and_others_are_restored(
    tmp_path: Path, said: Any
) -> None:
    class Decay(Callback):
        """Changes what is not configured differently later."""

        def on_train_end(self, trainer: Any, module: Any) -> None:
            trainer.optimizers[0].param_groups[0]["weight_decay"] = 0.5

    trainer = quiet(callbacks=Decay())
    module = variant(configure_optimizers=plain(SGD, lr=0.1, momentum=0.9))
    trainer.fit(module, loader())
    trainer.save_checkpoint(path := tmp_path / "some.ckpt")
    trainer, rates = fit(plain(SGD, lr=0.03, momentum=0.9), 2, path)
    group = trainer.optimizers[0].param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (0.03, 0.5)
    assert rates == [0.03] * BATCHES
    assert said() == ["optimizer 0, group 0: lr 0.1 -> 0.03 (the new setting counts)"]


def test_nothing_changed_says_nothing(tmp_path: Path, said: Any) -> None:
    configure = stepwise(lambda o: CosineAnnealingLR(o, T_max=3 * BATCHES))
    resumed(tmp_path, configure, configure)
    assert said() == []


@pytest.mark.parametrize(
    "make",
    [
        lambda o: CosineAnnealingLR(o, T_max=2 * BATCHES, eta_min=0.001),
        lambda o: ExponentialLR(o, 0.9),
        lambda o: StepLR(o, 3),
        lambda o: SequentialLR(
            o, [LinearLR(o, total_iters=3), CosineAnnealingLR(o, T_max=5)], [3]
        ),
    ],
    ids=["cosine", "exponential", "steps", "sequence"],
)
def test_new_rate_goes_through_the_schedule(
    make: Callable[[Any], Any], tmp_path: Path
) -> None:
    """As if the whole run had begun with it."""
    _, rates = resumed(tmp_path, stepwise(make, 0.1), stepwise(make, 0.02))
    _, whole = fit(stepwise(make, 0.02), 2)
    assert rates == pytest.approx(whole[BATCHES:], rel=1e-9)


def test_new_peak_of_one_cycle(tmp_path: Path, said: Any) -> None:
    def cycle(peak: float) -> Configure:
        return stepwise(lambda o: OneCycleLR(o, peak, total_steps=2 * BATCHES + 1))

    _, rates = resumed(tmp_path, cycle(0.1), cycle(0.3))
    _, whole = fit(cycle(0.3), 2)
    assert rates == pytest.approx(whole[BATCHES:])
    assert "optimizer 0, group 0: max_lr 0.1 -> 0.3 (the new setting counts)" in said()


def test_new_setting_of_a_scheduler(tmp_path: Path, said: Any) -> None:
    before, after = (stepwise(lambda o, g=g: StepLR(o, 2, gamma=g)) for g in (0.1, 0.5))
    _, rates = resumed(tmp_path, before, after)
    _, whole = fit(after, 2)
    assert rates == pytest.approx(whole[BATCHES:])
    assert said() == ["scheduler 0 (StepLR): gamma 0.1 -> 0.5 (the new setting counts)"]


def test_other_scheduler_begins_where_it_would_be(tmp_path: Path) -> None:
    before = stepwise(lambda o: ExponentialLR(o, 0.5))
    after = stepwise(lambda o: CosineAnnealingLR(o, T_max=2 * BATCHES))
    with pytest.warns(UserWarning, match="CosineAnnealingLR now and was ExponentialLR"):
        _, rates = resumed(tmp_path, before, after)
    _, whole = fit(after, 2)
    assert rates == pytest.approx(whole[BATCHES:])


def test_scheduler_by_epochs_begins_where_it_would_be(tmp_path: Path) -> None:
    def by_epoch(self: Any) -> Any:
        optimizer = SGD(self.parameters(), lr=0.1)
        return [optimizer], [StepLR(optimizer, 1)]

    with pytest.warns(UserWarning, match="StepLR now and was absent"):
        _, rates = resumed(tmp_path, plain(SGD, lr=0.1), by_epoch)
    assert rates == pytest.approx([0.01] * BATCHES)


def test_scheduler_that_is_gone_leaves_the_configured_rate(tmp_path: Path) -> None:
    before = stepwise(lambda o: ExponentialLR(o, 0.5))
    with pytest.warns(UserWarning, match="ExponentialLR, is gone"):
        _, rates = resumed(tmp_path, before, plain(SGD, lr=0.1, momentum=0.9))
    assert rates == [0.1] * BATCHES


def test_plateau_keeps_what_it_has_seen(tmp_path: Path) -> None:
    def plateau(lr: float, patience: int = 0) -> Configure:
        def configure(self: Any) -> Any:
            optimizer = SGD(self.parameters(), lr=lr)
            scheduler = ReduceLROnPlateau(optimizer, mode="max", patience=patience)
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": scheduler, "monitor": "val_loss"},
            }

        return configure

    def run(configure: Configure, epochs: int, path: Path | None = None) -> Any:
        trainer = quiet(max_epochs=epochs)
        module = variant(configure_optimizers=configure)
        trainer.fit(module, loader(), loader(4), ckpt_path=path)
        return trainer

    trainer = run(plateau(0.1), 2)  # falls, which is bad here: one reduction
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.01)
    trainer.save_checkpoint(path := tmp_path / "some.ckpt")
    trainer = run(plateau(0.2, patience=5), 3, path)
    scheduler = trainer.lr_scheduler_configs[0].scheduler
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.02)
    assert (scheduler.patience, scheduler.num_bad_epochs) == (5, 1)


def test_other_optimizer_starts_anew_with_the_rest_restored(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="optimizer 0 is AdamW now and was SGD"):
        trainer, rates = resumed(
            tmp_path, plain(SGD, lr=0.1, momentum=0.9), plain(AdamW, lr=0.003)
        )
    assert rates == [0.003] * BATCHES
    assert trainer.global_step == 2 * BATCHES
    (state,) = {int(s["step"]) for s in trainer.optimizers[0].state.values()}
    assert state == BATCHES  # of the second epoch only


def two_groups(lr: float = 0.1) -> Configure:
    return lambda self: SGD(
        [{"params": [self.layer.weight]}, {"params": [self.layer.bias], "lr": lr}],
        lr=0.1,
        momentum=0.9,
    )


def test_change_names_its_group(tmp_path: Path, said: Any) -> None:
    trainer, _ = resumed(tmp_path, two_groups(0.1), two_groups(0.2))
    assert [g["lr"] for g in trainer.optimizers[0].param_groups] == [0.1, 0.2]
    assert said() == ["optimizer 0, group 1: lr 0.1 -> 0.2 (the new setting counts)"]


def test_other_number_of_groups_is_refused(tmp_path: Path) -> None:
    message = message_of(resumed, tmp_path, plain(SGD, lr=0.1), two_groups())
    assert_says(message, "optimizer 0 (SGD)", "has 1 parameter group(s)", "are 2 now")


def test_group_of_other_parameters_is_named(tmp_path: Path) -> None:
    def only(name: str) -> Configure:
        return lambda self: Adam([getattr(self.layer, name)])

    message = message_of(resumed, tmp_path, only("weight"), only("bias"))
    assert_says(message, "group 0", "no longer `layer.weight`", "new `layer.bias`")


def test_parameters_in_another_order_keep_their_state(tmp_path: Path) -> None:
    def ordered(*names: str) -> Configure:
        def configure(self: Any) -> Any:
            return SGD([getattr(self.layer, n) for n in names], lr=0.1, momentum=0.9)

        return configure

    whole, _ = fit(ordered("weight", "bias"), 2)
    trainer, _ = resumed(tmp_path, ordered("weight", "bias"), ordered("bias", "weight"))
    one, other = (t.lightning_module.layer for t in (trainer, whole))
    assert torch.equal(one.weight, other.weight)
    assert torch.equal(one.bias, other.bias)


def test_file_without_a_record_is_checked_by_shape(tmp_path: Path) -> None:
    """Such as Lightning's; torch would pair state with parameters by their number."""

    def backwards(self: Any) -> Any:
        return Adam([self.layer.bias, self.layer.weight])

    trainer, _ = fit(plain(Adam), 1)
    trainer.save_checkpoint(path := tmp_path / "some.ckpt")
    content = torch.load(path, weights_only=True)
    del content["lightgen"]
    torch.save(content, path)
    message = message_of(fit, backwards, 2, path)
    assert_says(message, "`exp_avg` of parameter 0 in group 0", "[1, 4]", "[1]")


def test_record_is_of_the_configuration_not_of_the_moment(tmp_path: Path) -> None:
    trainer, _ = fit(stepwise(lambda o: ExponentialLR(o, 0.5)), 1)
    trainer.save_checkpoint(path := tmp_path / "some.ckpt")
    own = torch.load(path, weights_only=True)["lightgen"]
    (optimizer,), (scheduler,) = own["optimizers"], own["schedulers"]
    assert (optimizer["class"], scheduler["class"]) == ("SGD", "ExponentialLR")
    (group,) = optimizer["groups"]
    assert group["parameters"] == ["layer.weight", "layer.bias"]
    assert group["options"]["lr"] == 0.1
    assert group["options"]["momentum"] == 0.9


def test_record_names_what_an_optimizer_combines(tmp_path: Path) -> None:
    """As `lightgen regen` spells it, which compares this with a manifest."""

    def combined(second: type[Any]) -> Configure:
        def configure(self: Any) -> Any:
            first = SGD([self.layer.weight], lr=0.1)
            return CombinedOptimizer(first, second([self.layer.bias], lr=0.1))

        return configure

    trainer, _ = fit(combined(AdamW), 1)
    trainer.save_checkpoint(path := tmp_path / "some.ckpt")
    own = torch.load(path, weights_only=True)["lightgen"]
    assert own["optimizers"][0]["class"] == "CombinedOptimizer(SGD, AdamW)"
    with pytest.warns(UserWarning, match=r"CombinedOptimizer\(SGD, Adam\) now and was"):
        fit(combined(Adam), 2, path)


def test_epoch_that_was_over_stays_so_with_smaller_batches(tmp_path: Path) -> None:
    path = tmp_path / "some.ckpt"

    class Saves(Callback):
        """Writes where the epoch's last batch is done, and its end still to come."""

        def on_validation_end(self, trainer: Any, module: Any) -> None:
            if not path.exists() and trainer.is_last_batch:
                trainer.save_checkpoint(path)

    steps = []
    for batch_size, epochs, ckpt_path in ((4, 1, None), (2, 2, path)):
        trainer = quiet(max_epochs=epochs, num_sanity_val_steps=0, callbacks=Saves())
        data = loader(8, batch_size)
        trainer.fit(variant(), data, data, ckpt_path=ckpt_path)
        steps.append(trainer.global_step)
    assert steps == [2, 2 + 4]
