"""What cannot be saved is refused before the first batch, with its place."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import Small, loader, numbers, quiet, variant

from lightgen_runtime import Callback, LightningDataModule
from lightgen_runtime.callbacks import ModelCheckpoint
from lightgen_runtime.utilities.exceptions import MisconfigurationException


class Extra(torch.nn.Module):
    def get_extra_state(self) -> Any:
        return {"fn": print}

    def set_extra_state(self, state: Any) -> None: ...


class Odd(torch.optim.lr_scheduler.StepLR):
    def __init__(self, optimizer: Any) -> None:
        self.curve = lambda step: 1.0
        super().__init__(optimizer, 1)


class Data(LightningDataModule):
    def train_dataloader(self) -> Any:
        return loader()

    def state_dict(self) -> dict[str, Any]:
        return {"rows": iter(numbers())}


class Stateful(Callback):
    def state_dict(self) -> dict[str, Any]:
        return {"thing": object()}


class Adding(Callback):
    def on_save_checkpoint(self, trainer: Any, module: Any, checkpoint: Any) -> None:
        checkpoint["mine"] = [trainer]


def with_extra(self: Any) -> None:
    Small.__init__(self)
    self.extra = Extra()


def with_scheduler(self: Any) -> Any:
    optimizer = torch.optim.SGD(self.parameters(), 0.1)
    return [optimizer], [Odd(optimizer)]


def with_group(self: Any) -> Any:
    return torch.optim.SGD([{"params": self.parameters(), "owner": self}], 0.1)


def adding(self: Any, checkpoint: dict[str, Any]) -> None:
    checkpoint["state_dict"]  # what there is at a save is there
    checkpoint["mine"] = {"part": torch.nn.Linear(1, 1)}


CASES: dict[str, tuple[Any, list[Callback], str, str]] = {
    "callback": (Small, [Stateful()], r"callbacks\.Stateful\.thing", "a object"),
    "hook of a callback": (Small, [Adding()], r"mine\[0\]", "a Trainer"),
    "hook of the module": (
        lambda: variant(on_save_checkpoint=adding),
        [],
        r"mine\.part",
        r"\(Linear\)",
    ),
    "extra state": (
        lambda: variant(__init__=with_extra),
        [],
        r"state_dict\.extra\._extra_state\.fn",
        "built-in function print",
    ),
    "scheduler": (
        lambda: variant(configure_optimizers=with_scheduler),
        [],
        r"lr_schedulers\[0\]\.curve",
        "function",
    ),
    "optimizer": (
        lambda: variant(configure_optimizers=with_group),
        [],
        r"optimizer_states\[0\]\.param_groups\[0\]\.owner",
        "Variant",
    ),
}


def fit(module: Any, *callbacks: Callback, data: Any = None, **flags: Any) -> list[Any]:
    """Fit, and return the batches that were trained."""
    trained: list[Any] = []
    step = module.training_step
    module.training_step = lambda batch, batch_idx: (
        trained.append(batch_idx) or step(batch, batch_idx)
    )
    saving = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
    trainer = quiet(callbacks=list(callbacks), enable_checkpointing=saving, **flags)
    try:
        trainer.fit(module, None if data else loader(), datamodule=data)
    except MisconfigurationException:
        assert trained == []
        raise
    return trained


@pytest.mark.parametrize("case", CASES)
def test_what_is_no_data_is_refused_before_the_first_batch(
    case: str, tmp_path: Path
) -> None:
    make, callbacks, place, kind = CASES[case]
    with pytest.raises(MisconfigurationException) as caught:
        fit(make(), *callbacks, ModelCheckpoint(tmp_path))
    message = str(caught.value)
    assert "this fit saves checkpoints" in message
    assert "Nothing was trained" in message
    for part in (place, kind):
        assert re.search(part, message), message


def test_state_of_a_datamodule_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match=r"at `Data\.rows`"):
        fit(Small(), ModelCheckpoint(tmp_path), data=Data())


def test_fit_that_saves_nothing_is_not_asked() -> None:
    assert fit(variant(on_save_checkpoint=adding), Stateful(), Adding())


def test_trial_run_is_not_asked(tmp_path: Path) -> None:
    saving = ModelCheckpoint(tmp_path)
    assert fit(Small(), Stateful(), saving, fast_dev_run=True)


def test_weights_alone_ask_no_callback(tmp_path: Path) -> None:
    saving = ModelCheckpoint(tmp_path, save_weights_only=True)
    assert fit(Small(), Stateful(), Adding(), saving)


def test_hyperparameters_that_are_no_data_are_named_at_the_start(
    tmp_path: Path,
) -> None:
    class Hungry(Small):
        def __init__(self, lr: float, loss: Any) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.trained = False

        def on_train_start(self) -> None:
            self.trained = True

    module = Hungry(0.1, torch.nn.MSELoss())
    trainer = quiet(callbacks=[ModelCheckpoint(tmp_path)], enable_checkpointing=True)
    with (
        pytest.warns(UserWarning, match=r"`loss` \(MSELoss\).*ignore=\['loss'\]"),
        pytest.raises(KeyboardInterrupt),
    ):
        trainer.fit(module, interrupting())
    assert not list(tmp_path.iterdir())


def interrupting() -> Any:
    class Rows(torch.utils.data.IterableDataset[Any]):
        def __iter__(self) -> Any:
            raise KeyboardInterrupt

    return torch.utils.data.DataLoader(Rows())


def test_hook_that_needs_training_first_is_left_alone(tmp_path: Path) -> None:
    class Later(Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            self.seen = [1]

        def on_save_checkpoint(
            self, trainer: Any, module: Any, checkpoint: Any
        ) -> None:
            checkpoint["seen"] = self.seen

    assert fit(Small(), Later(), ModelCheckpoint(tmp_path, "x"))
    assert torch.load(tmp_path / "x.ckpt", weights_only=True)["seen"] == [1]


def test_hooks_are_asked_once_and_only_where_there_are_any(tmp_path: Path) -> None:
    calls = []

    class Counting(Callback):
        def on_save_checkpoint(
            self, trainer: Any, module: Any, checkpoint: Any
        ) -> None:
            calls.append((trainer.global_step, sorted(checkpoint)))

    fit(Small(), Counting(), ModelCheckpoint(tmp_path))
    (asked, there), (saved, _) = calls
    assert (asked, saved) == (0, 4)
    assert {"state_dict", "callbacks", "optimizer_states", "loops"} <= set(there)


def test_asking_changes_nothing_of_the_run(tmp_path: Path) -> None:
    def changing(self: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint["state_dict"].clear()
        checkpoint["optimizer_states"].clear()

    ends: list[Any] = []
    for members in ({}, {"on_save_checkpoint": changing}):
        torch.manual_seed(0)
        module = variant(**members)
        fit(module, ModelCheckpoint(tmp_path))
        ends.append(module.layer.weight.detach().clone())
    assert torch.equal(*ends)


class OneMapping(Small):
    def __init__(self, table: dict[Any, Any]) -> None:
        super().__init__()
        self.save_hyperparameters(table)


def test_numbers_as_keys_of_one_hyperparameter_come_back(tmp_path: Path) -> None:
    keeper = ModelCheckpoint(tmp_path)
    trainer = quiet(callbacks=keeper, enable_checkpointing=True)
    trainer.fit(OneMapping({0: 1}), loader())
    module = OneMapping.load_from_checkpoint(keeper.best_model_path)
    assert dict(module.hparams) == {0: 1}


class Nested(Callback):
    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {}
        for _ in range(200):
            state = {"in": state}
        return state


class Replacing(Callback):
    def on_save_checkpoint(self, trainer: Any, module: Any, checkpoint: Any) -> None:
        checkpoint["callbacks"] = ["mine"]


@pytest.mark.parametrize(
    ("callback", "told"),
    [(Nested, "nested more than 100"), (Replacing, "a mapping is")],
)
def test_what_could_not_be_read_again_is_refused(
    callback: type[Callback], told: str, tmp_path: Path
) -> None:
    keeper = ModelCheckpoint(tmp_path)
    trainer = quiet(callbacks=[keeper, callback()], enable_checkpointing=True)
    with pytest.raises(MisconfigurationException, match=f"(?s){told}.*Nothing was"):
        trainer.fit(Small(), loader())
