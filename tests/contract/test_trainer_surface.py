"""Attributes, environment variables and flag forms of `Trainer`, in both packages."""

from __future__ import annotations

import importlib
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from recording import OURS, REFERENCE, data, quiet_trainer, small_module
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.data import DataLoader, IterableDataset

BOTH = [OURS, REFERENCE]

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.parametrize("namespace", BOTH),
]


def fitted(namespace: str, module: Any = None, **flags: Any) -> Any:
    trainer = quiet_trainer(namespace, **{"max_epochs": 1, **flags})
    trainer.fit(module or small_module(namespace)(), data(), data(4))
    return trainer


# ---- what runs ----

PREPARATION = (
    *("configure_callbacks", "prepare_data", "setup", "configure_model"),
    *("configure_optimizers", "on_fit_start", "teardown", "train_dataloader"),
    *("val_dataloader", "test_dataloader", "predict_dataloader"),
)


@pytest.mark.parametrize("fn", ["fit", "validate", "test", "predict"])
def test_stage_is_known_from_the_first_hook_to_the_last(
    namespace: str, fn: str
) -> None:
    found: list[Any] = []

    def telling(name: str, given: Any) -> Any:
        def hook(self: Any, stage: Any = None) -> Any:
            state, trainer = self.trainer.state, self.trainer
            kinds = (trainer.training, trainer.evaluating, trainer.predicting)
            told = None if stage is None else (stage == fn, stage.value)
            found.append((name, state.fn.value, state.stage.value, kinds, told))
            return given(self)

        return hook

    base = small_module(namespace)
    module_class = type("Telling", (base,), {})
    for name in PREPARATION[: -3 if fn == "fit" else None]:
        given: Any = getattr(base, name)
        if name.endswith("_dataloader"):
            given = lambda _: data(4)  # noqa: E731
        elif name in ("setup", "teardown"):
            given = lambda _: None  # noqa: E731
        setattr(module_class, name, telling(name, given))
    module = module_class()
    module.test_step = module.predict_step = lambda batch, batch_idx: None
    trainer = quiet_trainer(namespace, max_epochs=1, num_sanity_val_steps=0)
    getattr(trainer, fn)(module)

    stage = "train" if fn == "fit" else fn
    kinds = (fn == "fit", fn in ("validate", "test"), fn == "predict")
    assert {name for name, *_ in found} >= {"setup", "configure_model", "teardown"}
    for name, *state, told in found:
        assert state == [fn, stage, kinds], name
        assert told in (None, (True, fn)), name
    assert trainer.state.stage is None


def test_trial_run_has_the_default_checkpoint_callback_too(namespace: str) -> None:
    trainer = importlib.import_module(namespace).Trainer(
        accelerator="cpu", fast_dev_run=True, enable_progress_bar=False
    )
    trainer.fit(small_module(namespace)(), data(), data(4))
    assert trainer.checkpoint_callback.best_model_path == ""
    assert trainer.checkpoint_callback.best_model_score is None


# ---- arguments from the environment ----


@pytest.mark.parametrize(
    ("variable", "text", "attribute", "expected"),
    [
        ("PL_TRAINER_MAX_EPOCHS", "3", "max_epochs", 3),
        ("PL_TRAINER_MAX_STEPS", "5", "max_steps", 5),
        ("PL_TRAINER_LIMIT_TRAIN_BATCHES", "0.5", "limit_train_batches", 0.5),
        ("PL_TRAINER_BAREBONES", "True", "barebones", True),
        ("PL_TRAINER_DEFAULT_ROOT_DIR", "there", "default_root_dir", "there"),
        ("PL_TRAINER_MIN_EPOCHS", "", "min_epochs", None),
    ],
)
def test_variable_stands_in_for_an_argument_not_passed(
    namespace: str,
    variable: str,
    text: str,
    attribute: str,
    expected: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(variable, text)
    made = importlib.import_module(namespace).Trainer(accelerator="cpu")
    assert getattr(made, attribute) == expected


def test_argument_that_is_passed_outranks_the_variable(
    namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PL_TRAINER_MAX_EPOCHS", "3")
    assert quiet_trainer(namespace, max_epochs=7).max_epochs == 7


def test_subclass_reads_variables_of_its_own_name(
    namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = importlib.import_module(namespace).Trainer
    monkeypatch.setenv("PL_TRAINER_MAX_EPOCHS", "3")
    monkeypatch.setenv("PL_MINE_MAX_EPOCHS", "4")
    made = type("Mine", (base,), {})(accelerator="cpu", logger=False)
    assert made.max_epochs == 4


# ---- forms of flags ----


@pytest.mark.parametrize(
    ("flags", "attribute", "expected"),
    [
        ({"limit_train_batches": 2.0}, "limit_train_batches", 2),
        ({"limit_val_batches": 3}, "limit_val_batches", 3),
        ({"limit_test_batches": 0.5}, "limit_test_batches", 0.5),
        ({"overfit_batches": 2}, "limit_train_batches", 2),
        ({"overfit_batches": 2}, "overfit_batches", 2),
        ({"fast_dev_run": True}, "fast_dev_run", True),
        ({"fast_dev_run": 3}, "fast_dev_run", 3),
        ({"fast_dev_run": 3}, "max_steps", 3),
        ({"fast_dev_run": 3}, "limit_predict_batches", 3),
        ({"num_sanity_val_steps": -1}, "num_sanity_val_steps", float("inf")),
        ({"val_check_interval": 0.5}, "val_check_interval", 0.5),
        ({"check_val_every_n_epoch": None}, "check_val_every_n_epoch", None),
        (
            {"reload_dataloaders_every_n_epochs": 2},
            "reload_dataloaders_every_n_epochs",
            2,
        ),
        ({"model_registry": "mine"}, "max_epochs", None),
    ],
)
def test_flag_is_an_attribute(
    namespace: str, flags: dict[str, Any], attribute: str, expected: Any
) -> None:
    trainer = quiet_trainer(namespace, **flags)
    value = getattr(trainer, attribute)
    if expected is None and attribute == "max_epochs":
        expected = 1000 if namespace == OURS else None
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("attribute", "value", "stage", "batches"),
    [
        ("limit_test_batches", 1, "test", 1),
        ("limit_test_batches", 0.5, "test", 2),
        ("limit_val_batches", 2, "validate", 2),
    ],
)
def test_limit_may_be_assigned_between_runs(
    namespace: str, attribute: str, value: Any, stage: str, batches: int
) -> None:
    trainer = fitted(namespace)
    setattr(trainer, attribute, value)
    getattr(trainer, stage)(small_module(namespace)(), data(), verbose=False)
    name = "num_val_batches" if stage == "validate" else "num_test_batches"
    assert getattr(trainer, name) == [batches]


def test_a_finished_fit_goes_on_with_a_larger_limit(namespace: str) -> None:
    module = small_module(namespace)()
    trainer = fitted(namespace, module)
    trainer.fit_loop.max_epochs = 3
    trainer.fit(module, data(), data(4))
    assert (trainer.current_epoch, trainer.global_step) == (3, 12)


def test_limit_raised_while_training_counts_at_once(namespace: str) -> None:
    class Longer(small_module(namespace)):  # type: ignore[misc]
        def on_train_epoch_end(self) -> None:
            self.trainer.fit_loop.max_epochs = 3

    assert fitted(namespace, Longer()).current_epoch == 3


def test_loggers_may_be_assigned(namespace: str, tmp_path: Any) -> None:
    loggers = importlib.import_module(f"{namespace}.pytorch.loggers")
    trainer = quiet_trainer(namespace, logger=True, default_root_dir=tmp_path)
    mine = loggers.CSVLogger(tmp_path)
    trainer.logger = mine
    assert (trainer.logger, trainer.loggers) == (mine, [mine])
    trainer.logger = None
    assert (trainer.logger, trainer.loggers) == (None, [])


# ---- what a trainer shows ----


def test_attributes_before_any_run(namespace: str) -> None:
    trainer = quiet_trainer(namespace)
    shown = {
        name: getattr(trainer, name)
        for name in (
            "lightning_module",
            "model",
            "datamodule",
            "ckpt_path",
            "current_epoch",
            "global_step",
            "num_devices",
            "num_nodes",
            "device_ids",
            "world_size",
            "interrupted",
            "should_stop",
            "scaler",
            "early_stopping_callbacks",
            "checkpoint_callback",
        )
    }
    assert shown == {
        "lightning_module": None,
        "model": None,
        "datamodule": None,
        "ckpt_path": None,
        "current_epoch": 0,
        "global_step": 0,
        "num_devices": 1,
        "num_nodes": 1,
        "device_ids": [0],
        "world_size": 1,
        "interrupted": False,
        "should_stop": False,
        "scaler": None,
        "early_stopping_callbacks": [],
        "checkpoint_callback": None,
    }


def test_attributes_inside_a_step(namespace: str) -> None:
    seen: list[Any] = []

    class Looking(small_module(namespace)):  # type: ignore[misc]
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            trainer, loop = self.trainer, self.trainer.fit_loop
            seen.append(
                (
                    loop.epoch_loop.batch_idx,
                    loop.epoch_loop.total_batch_idx,
                    loop.epoch_loop.global_step,
                    loop.epoch_loop._batches_that_stepped,
                    loop.epoch_progress.current.completed,
                    loop.max_batches,
                    trainer.num_training_batches,
                    trainer.num_val_batches,
                    trainer.num_sanity_val_batches,
                    trainer.val_check_batch,
                    trainer.is_last_batch,
                    trainer.enable_validation,
                    trainer.estimated_stepping_batches,
                    trainer.training,
                    trainer.lightning_module is self,
                    trainer.model is self,
                    trainer.strategy.lightning_module is self,
                    trainer.strategy.model is self,
                    len(trainer.optimizers),
                    len(trainer.lr_scheduler_configs),
                )
            )
            return super().training_step(batch, batch_idx)

        def on_train_batch_end(self, *args: Any) -> None:
            loop = self.trainer.fit_loop.epoch_loop
            progress = loop.batch_progress
            seen.append(
                (
                    loop.batch_idx,
                    progress.current.processed,
                    progress.current.completed,
                    progress.total.ready,
                    progress.is_last_batch,
                )
            )

    fitted(namespace, Looking(), max_epochs=2, accumulate_grad_batches=2)
    first = (0, 0, 0, 0, 0, 4, 4, [2], [2], 4, False, True, 4, *[True] * 5, 1, 0)
    assert seen[0] == first
    assert seen[1] == (0, 1, 0, 1, False)
    assert seen[-2][:5] == (3, 7, 3, 3, 1)
    assert seen[-1] == (3, 4, 3, 8, True)


LOADERS = {
    "one": lambda: data(4),
    "a list of one": lambda: [data(4)],
    "a list": lambda: [data(4), data(2)],
    "a dictionary": lambda: {"a": data(4), "b": [data(2), data(6)]},
}


@pytest.mark.parametrize("given", LOADERS)
def test_loaders_are_shown_in_the_form_they_came_in(namespace: str, given: str) -> None:
    def sizes(loaders: Any) -> Any:
        return tree_map(len, loaders)

    class Taking(small_module(namespace)):  # type: ignore[misc]
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            first, *_ = tree_leaves(batch)
            return super().training_step(first, batch_idx)

        def validation_step(self, batch: Any, i: int, dataloader_idx: int = 0) -> None:
            pass

        def on_train_start(self) -> None:
            seen.extend([self.trainer.train_dataloader, self.trainer.val_dataloaders])

    seen: list[Any] = []
    made = LOADERS[given]()
    quiet_trainer(namespace, max_epochs=1).fit(Taking(), made, LOADERS[given]())
    assert [sizes(loaders) for loaders in seen] == [sizes(made)] * 2
    assert isinstance(made, list) is isinstance(seen[0], list)


@pytest.mark.parametrize("empty", [None, True])
def test_module_made_in_place(namespace: str, empty: Any) -> None:
    trainer = quiet_trainer(namespace)
    with trainer.init_module(empty_init=empty):
        torch.manual_seed(0)
        made = torch.nn.Linear(4, 4)
        drawn = torch.rand(())
    torch.manual_seed(0)
    drawn_first = torch.rand(())
    assert (made.weight.dtype, made.weight.device.type) == (torch.float32, "cpu")
    # Without initialization nothing was drawn before.
    assert bool(drawn == drawn_first) is bool(empty)


# ---- validation by the clock ----


class Clock:
    """A clock that only its owner moves."""

    def __init__(self) -> None:
        self.now, self.looks = 0.0, 0

    def monotonic(self) -> float:
        self.looks += 1
        return self.now


def clock_of(namespace: str, monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    if namespace == OURS:
        module = importlib.import_module("lightgen_runtime.loops.val_clock")
        monkeypatch.setattr(module, "monotonic", clock.monotonic)
        return clock
    stand_in = SimpleNamespace(monotonic=clock.monotonic)
    for name in ("fit_loop", "training_epoch_loop", "evaluation_loop"):
        loop = importlib.import_module(f"lightning.pytorch.loops.{name}")
        monkeypatch.setattr(loop, "time", stand_in)
    return clock


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(torch.ones(12, 4))


@pytest.mark.parametrize("sized", [True, False])
@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"val_check_interval": "00:00:00:03"}, [3, 6, 9, 12, 15, 18, 21, 24]),
        ({"val_check_interval": timedelta(seconds=10)}, [10, 20]),
        ({"val_check_interval": {"seconds": 7}}, [7, 14, 21]),
        (
            {"val_check_interval": {"seconds": 5}, "check_val_every_n_epoch": 2},
            [13, 18, 23],
        ),
        ({"val_check_interval": "01:00:00:00"}, []),
    ],
)
def test_validation_by_the_clock(
    namespace: str,
    flags: dict[str, Any],
    expected: list[int],
    sized: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, validated, steps = clock_of(namespace, monkeypatch), [], []

    class Timed(small_module(namespace)):  # type: ignore[misc]
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            clock.now += 1.0
            steps.append(batch_idx)
            return super().training_step(batch, batch_idx)

        def on_validation_start(self) -> None:
            validated.append(len(steps))

    trainer = quiet_trainer(namespace, max_epochs=2, num_sanity_val_steps=0, **flags)
    loader = data(12, 1) if sized else DataLoader(Stream(), 1)
    trainer.fit(Timed(), loader, data(2))
    assert validated == expected
    assert trainer.val_check_batch is None


@pytest.mark.parametrize("interval", ["3 hours", "00:10", {"second": 3}])
def test_time_that_is_none_is_refused(namespace: str, interval: Any) -> None:
    with pytest.raises(Exception, match=r"DD:HH:MM:SS|second"):
        quiet_trainer(namespace, val_check_interval=interval)


def test_share_of_an_epoch_is_not_counted_across_epochs(namespace: str) -> None:
    with pytest.raises(Exception, match="check_val_every_n_epoch=None"):
        quiet_trainer(namespace, val_check_interval=0.5, check_val_every_n_epoch=None)
