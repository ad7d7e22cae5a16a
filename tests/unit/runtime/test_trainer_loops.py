"""What the loops do with batches: windows, schedules, limits, modes, several loaders."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest
import torch
from small_runs import Small, Stream, fitted, loader, numbers, quiet, variant
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR, StepLR
from torch.utils.data import DataLoader, RandomSampler

from lightgen_runtime import Callback, Trainer

# ---- the two ways of stepping ----

HOOKS = [
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
]


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"accumulate_grad_batches": 3},
        {"gradient_clip_val": 0.1},
        {"accumulate_grad_batches": 2, "gradient_clip_val": 0.1, "max_steps": 3},
    ],
    ids=str,
)
def test_closure_and_direct_step_agree_to_the_bit(flags: dict[str, Any]) -> None:
    def train(**members: Any) -> tuple[list[str], torch.Tensor]:
        trace: list[str] = []
        for hook in HOOKS:
            members[hook] = lambda self, *args, name=hook: trace.append(name)
        module = variant(**members)
        fitted(module, max_epochs=2, **flags)
        return trace, module.layer.weight.detach()

    direct = train()
    closure = train(backward=lambda self, loss: loss.backward())
    assert direct[0] == closure[0]
    assert torch.equal(direct[1], closure[1])


# ---- accumulation ----


@pytest.mark.parametrize("sized", [True, False])
@pytest.mark.parametrize("closure", [True, False])
@pytest.mark.parametrize("rows", [3, 4, 5, 6, 7])
def test_short_last_window_has_the_exact_mean_gradient(
    rows: int, closure: bool, sized: bool
) -> None:
    seen = []

    def on_before_optimizer_step(self: Any, optimizer: Any) -> None:
        seen.append(self.layer.weight.grad.clone())

    def configure_optimizers(self: Any) -> Any:
        return SGD(self.parameters(), lr=0.0)

    members: dict[str, Any] = {
        "on_before_optimizer_step": on_before_optimizer_step,
        "configure_optimizers": configure_optimizers,
    }
    if closure:
        members["backward"] = lambda self, loss: loss.backward()
    module = variant(**members)
    given = numbers(rows) if sized else Stream(rows)
    quiet(accumulate_grad_batches=4).fit(module, DataLoader(given, 1))  # type: ignore
    expected = []
    for window in numbers(rows).split(4):
        module.zero_grad()
        module(window).pow(2).mean().backward()
        expected.append(module.layer.weight.grad.clone())
    assert len(seen) == len(expected)
    for ours, exact in zip(seen, expected, strict=True):
        assert torch.allclose(ours, exact, atol=1e-7)


def test_window_longer_than_the_epoch_steps_once_an_epoch() -> None:
    assert fitted(Small(), accumulate_grad_batches=10, max_epochs=3).global_step == 3


def test_none_loss_skips_the_backward_pass_only() -> None:
    module = variant(training_step=lambda self, batch, batch_idx: None)
    before = module.layer.weight.clone()
    with pytest.warns(UserWarning, match="returned None: the batch is skipped"):
        trainer = fitted(module)
    assert trainer.global_step == 4
    assert torch.equal(module.layer.weight, before)


# ---- schedulers ----


def rates_of(config: dict[str, Any], **flags: Any) -> list[float]:
    """Return the learning rate, halved by each scheduler step, after each batch."""
    rates = []

    def configure_optimizers(self: Any) -> Any:
        optimizer = SGD(self.parameters(), lr=1.0)
        scheduler = StepLR(optimizer, 1, gamma=0.5)
        return [optimizer], [{"scheduler": scheduler, **config}]

    def on_train_batch_end(self: Any, *args: Any) -> None:
        rates.append(self.optimizers().param_groups[0]["lr"])

    fitted(
        variant(
            configure_optimizers=configure_optimizers,
            on_train_batch_end=on_train_batch_end,
        ),
        **flags,
    )
    return rates


def test_step_frequency_counts_optimizer_steps_across_epochs() -> None:
    rates = rates_of({"interval": "step", "frequency": 3}, max_epochs=2)
    assert rates == [1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]


def test_step_frequency_with_accumulation_counts_windows() -> None:
    config = {"interval": "step", "frequency": 2}
    rates = rates_of(config, accumulate_grad_batches=2, max_epochs=2)
    assert rates == [1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25]


def test_epoch_frequency_counts_epochs() -> None:
    rates = rates_of({"interval": "epoch", "frequency": 2}, max_epochs=4)
    assert rates == [1.0] * 7 + [0.5] * 8 + [0.25]


def test_two_schedulers_keep_their_own_times() -> None:
    def configure_optimizers(self: Any) -> Any:
        optimizer = SGD(self.parameters(), lr=1.0)
        self.per_step = LambdaLR(optimizer, lambda step: 1.0)
        self.per_epoch = StepLR(optimizer, 1)
        return [optimizer], [
            {"scheduler": self.per_step, "interval": "step"},
            self.per_epoch,
        ]

    module = variant(configure_optimizers=configure_optimizers)
    trainer = fitted(module, max_epochs=3)
    assert module.per_step.last_epoch == 12
    assert module.per_epoch.last_epoch == 3
    assert [c.interval for c in trainer.lr_scheduler_configs] == ["step", "epoch"]


# ---- modes and gradients ----


def test_frozen_batch_norm_stays_in_evaluation_mode() -> None:
    seen = []

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        seen.append((self.training, self.norm.training))
        return self(self.norm(batch)).mean()

    module = variant(training_step=training_step)
    module.norm = torch.nn.BatchNorm1d(4).eval()
    fitted(module, max_epochs=2)
    assert set(seen) == {(True, False)}
    assert torch.equal(module.norm.running_mean, torch.zeros(4))


@pytest.mark.parametrize("method", ["validate", "test", "predict"])
def test_every_submodule_gets_its_own_mode_back(method: str) -> None:
    module = Small()
    module.norm = torch.nn.BatchNorm1d(4).eval()
    run = getattr(quiet(), method)
    run(module, loader(), **({} if method == "predict" else {"verbose": False}))
    assert (module.training, module.layer.training, module.norm.training) == (
        True,
        True,
        False,
    )


@pytest.mark.parametrize("inference_mode", [True, False])
def test_inference_mode_outside_of_a_fit_only(inference_mode: bool) -> None:
    seen: dict[str, set[tuple[bool, bool]]] = {}

    def noted(name: str) -> Any:
        def step(self: Any, batch: Any, batch_idx: int) -> Any:
            state = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
            seen.setdefault(name, set()).add(state)
            return self(batch).mean()

        return step

    names = ("training_step", "validation_step", "test_step", "predict_step")
    module = variant(**{name: noted(name) for name in names})
    trainer = fitted(module, inference_mode=inference_mode)
    assert seen["training_step"] == {(True, False)}
    assert seen["validation_step"] == {(False, False)}
    trainer.test(module, loader(), verbose=False)
    trainer.predict(module, loader())
    assert seen["test_step"] == seen["predict_step"] == {(False, inference_mode)}


def test_gradients_are_released_before_validation() -> None:
    seen = []

    def on_validation_start(self: Any) -> None:
        seen.append(self.layer.weight.grad)

    fitted(variant(on_validation_start=on_validation_start))
    assert seen == [None, None]


# ---- limits ----


def test_overfit_batches_are_the_same_unshuffled_ones() -> None:
    seen = []

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        seen.append(batch)
        return self(batch).mean()

    trainer = quiet(overfit_batches=1, max_epochs=3)
    trainer.fit(variant(training_step=training_step), loader(shuffle=True), loader(4))
    assert len(seen) == 3
    assert all(torch.equal(batch, numbers()[:2]) for batch in seen)
    assert trainer.num_val_batches == [1]
    assert not isinstance(trainer.train_dataloader.sampler, RandomSampler)


@pytest.mark.parametrize(
    ("flags", "batches", "validations"),
    [
        ({"limit_train_batches": 3}, 3, 2),
        ({"limit_train_batches": 0.5}, 2, 2),
        ({"limit_train_batches": 100}, 4, 2),
        ({"limit_train_batches": 0}, 0, 0),
        ({"limit_val_batches": 1}, 4, 1),
        ({"limit_val_batches": 0}, 4, 0),
        ({"limit_val_batches": 0.5}, 4, 1),
        ({"max_steps": 2}, 2, 0),
        ({"max_steps": 0}, 0, 0),
        ({"max_epochs": 0}, 0, 0),
        ({"max_epochs": 2, "check_val_every_n_epoch": 2}, 8, 2),
        ({"val_check_interval": 2}, 4, 4),
        ({"val_check_interval": 0.25}, 4, 8),
        ({"log_every_n_steps": 0}, 4, 2),
    ],
    ids=str,
)
def test_limits_count_batches(
    flags: dict[str, Any], batches: int, validations: int
) -> None:
    counts = {"train": 0, "val": 0}

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        counts["train"] += 1
        return self(batch).mean()

    def validation_step(self: Any, batch: Any, batch_idx: int) -> None:
        counts["val"] += 1

    module = variant(training_step=training_step, validation_step=validation_step)
    fitted(module, num_sanity_val_steps=0, **flags)
    assert counts == {"train": batches, "val": validations}


@pytest.mark.parametrize(("steps", "expected"), [(0, 0), (1, 1), (2, 2), (-1, 4)])
def test_sanity_check_counts_batches_and_draws_no_random_numbers(
    steps: int, expected: int
) -> None:
    calls = []

    def validation_step(self: Any, batch: Any, batch_idx: int) -> None:
        if self.trainer.sanity_checking:
            calls.append(torch.rand(1))

    after: list[torch.Tensor] = []
    module = variant(
        validation_step=validation_step,
        on_train_start=lambda self: after.append(torch.rand(1)),
    )
    torch.manual_seed(3)
    undisturbed = torch.rand(1)
    torch.manual_seed(3)
    quiet(num_sanity_val_steps=steps).fit(module, loader(), loader())
    assert len(calls) == expected
    assert after == [undisturbed]


def test_estimated_steps_follow_the_flags() -> None:
    found = []

    def configure_optimizers(self: Any) -> Any:
        found.append(self.trainer.estimated_stepping_batches)
        return SGD(self.parameters(), lr=0.1)

    module = variant(configure_optimizers=configure_optimizers)
    for flags in (
        {"max_epochs": 3},
        {"max_epochs": 3, "accumulate_grad_batches": 3},
        {"max_epochs": 3, "limit_train_batches": 2},
        {"max_epochs": 3, "max_steps": 5},
        {"max_epochs": -1, "max_steps": 5},
    ):
        fitted(module, **flags)
    assert found == [12, 6, 6, 5, 5]


# ---- loaders ----


def test_several_validation_loaders_run_one_after_the_other() -> None:
    seen = []

    def validation_step(
        self: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if not self.trainer.sanity_checking:
            seen.append((dataloader_idx, batch_idx))

    trainer = quiet()
    module = variant(validation_step=validation_step)
    trainer.fit(module, loader(), [loader(2), loader(4)])
    assert seen == [(0, 0), (1, 0), (1, 1)]
    assert trainer.num_val_batches == [1, 2]


def test_hooks_know_the_loader_if_there_are_several() -> None:
    callback = Callback()
    callback.on_test_batch_start = Mock()  # type: ignore[method-assign]
    quiet(callbacks=callback).test(Small(), [loader(2), loader(2)], verbose=False)
    calls = callback.on_test_batch_start.call_args_list
    assert [call.args[3:] for call in calls] == [(0, 0), (0, 1)]


def test_no_validation_loader_is_no_validation() -> None:
    module = variant(
        val_dataloader=lambda self: [],
        on_validation_start=Mock(),
        validation_step=Mock(),
    )
    quiet(max_epochs=2).fit(module, loader())
    module.on_validation_start.assert_not_called()


def test_training_without_validation_step_says_so() -> None:
    class Bare(Small):
        validation_step = Small.__mro__[1].validation_step  # type: ignore

        def validaton_step(self, batch: Any, batch_idx: int) -> None: ...

    with pytest.warns(
        UserWarning, match="Did you mean `validation_step` by `validaton"
    ):
        trainer = fitted(Bare())
    assert not trainer.enable_validation


@pytest.mark.parametrize(
    "given",
    [
        [numbers()[:2], numbers()[2:4]],
        (batch for batch in [numbers()[:2], numbers()[2:4]]),
    ],
    ids=["list", "generator"],
)
def test_any_iterable_of_batches_can_be_evaluated(given: Any) -> None:
    class Iterable:
        def __iter__(self) -> Any:
            return iter(given)

    (results,) = quiet().test(Small(), Iterable(), verbose=False)
    assert set(results) == {"test_loss"}


def test_batches_of_any_nesting_reach_the_step() -> None:
    seen = []

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        seen.append((sorted(batch), type(batch["pair"]), batch["name"]))
        return self(batch["x"]).mean()

    rows = [{"x": row, "pair": (row, 1), "name": "a"} for row in numbers(4)]
    quiet().fit(variant(training_step=training_step), DataLoader(rows, 2))
    assert seen == [(["name", "pair", "x"], list, ["a", "a"])] * 2


def test_transfer_hooks_of_module_and_datamodule_run_in_order() -> None:
    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        seen.append(batch)
        return self(numbers()).mean()

    seen: list[Any] = []
    module = variant(
        training_step=training_step,
        on_before_batch_transfer=lambda self, batch, i: ["before"],
        transfer_batch_to_device=lambda self, batch, device, i: [*batch, str(device)],
        on_after_batch_transfer=lambda self, batch, i: [*batch, "after"],
    )
    quiet().fit(module, loader(2))
    assert seen == [["before", "cpu", "after"]]


def test_predictions_may_be_dropped() -> None:
    trainer = quiet()
    assert trainer.predict(Small(), loader(), return_predictions=False) is None


def test_sampler_is_told_the_epoch() -> None:
    class Sampler(torch.utils.data.SequentialSampler):
        set_epoch = Mock()

    given = DataLoader(numbers(), 2, sampler=Sampler(numbers()))  # type: ignore
    quiet(max_epochs=3).fit(Small(), given)
    assert [call.args for call in Sampler.set_epoch.call_args_list] == [
        (0,),
        (1,),
        (2,),
    ]


def test_manual_optimization_steps_no_scheduler() -> None:
    def configure_optimizers(self: Any) -> Any:
        self.automatic_optimization = False
        optimizer = SGD(self.parameters(), lr=1.0)
        self.schedule = StepLR(optimizer, 1)
        return [optimizer], [self.schedule]

    def training_step(self: Any, batch: Any, batch_idx: int) -> None:
        optimizer = self.optimizers()
        assert isinstance(optimizer, SGD)
        assert self.lr_schedulers() is self.schedule
        with optimizer.toggle_model():
            self.manual_backward(self(batch).pow(2).mean())
            optimizer.step()
            optimizer.zero_grad()

    module = variant(
        configure_optimizers=configure_optimizers, training_step=training_step
    )
    trainer: Trainer = fitted(module, max_epochs=2)
    assert trainer.global_step == 8
    assert module.schedule.last_epoch == 0
