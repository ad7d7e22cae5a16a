"""`WeightAveraging` and its exponential form: who sees which weights, and resuming."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from resuming import Interrupt, assert_resumes
from small_runs import Small, fitted, loader, quiet, variant

from lightgen_runtime import Callback
from lightgen_runtime.callbacks import (
    EMAWeightAveraging,
    ModelCheckpoint,
    OnExceptionCheckpoint,
    WeightAveraging,
)
from lightgen_runtime.callbacks import weight_averaging as averaging_module


class Weights(Callback):
    """Keeps the weights after each step and in each validation."""

    def __init__(self) -> None:
        self.trained: list[torch.Tensor] = []
        self.validated: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        self.trained.append(pl_module.layer.weight.detach().clone())

    def on_validation_batch_start(
        self, trainer: Any, pl_module: Any, *args: Any
    ) -> None:
        if not trainer.sanity_checking:
            self.validated.append(pl_module.layer.weight.detach().clone())


def test_mean_is_validated_saved_and_left_behind(tmp_path: Path) -> None:
    weights, module = Weights(), Small()
    fitted(
        module,
        callbacks=[WeightAveraging(), weights, ModelCheckpoint(tmp_path, "a")],
        enable_checkpointing=True,
    )
    mean = torch.stack(weights.trained).mean(0)
    torch.testing.assert_close(weights.validated[-1], mean)
    torch.testing.assert_close(module.layer.weight.detach(), mean)
    file = torch.load(tmp_path / "a.ckpt", weights_only=True)
    torch.testing.assert_close(file["state_dict"]["layer.weight"], mean)
    current = file["current_model_state"]["layer.weight"]
    assert torch.equal(current, weights.trained[-1])
    loaded = Small.load_from_checkpoint(tmp_path / "a.ckpt")
    torch.testing.assert_close(loaded.layer.weight.detach(), mean)


def test_weights_train_on_as_if_nobody_averaged() -> None:
    averaged, plain = Weights(), Weights()
    fitted(Small(), callbacks=[EMAWeightAveraging(decay=0.5), averaged], max_epochs=2)
    fitted(Small(), callbacks=[plain], max_epochs=2)
    for ours, theirs in zip(averaged.trained, plain.trained, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    "make",
    [
        WeightAveraging,
        lambda: EMAWeightAveraging(decay=0.7, update_every_n_steps=2),
        lambda: EMAWeightAveraging(
            decay=0.7, update_every_n_steps=0, update_starting_at_epoch=1
        ),
    ],
    ids=["mean", "ema", "by epoch"],
)
def test_resumed_fit_equals_uninterrupted_fit(make: Any, tmp_path: Path) -> None:
    moments = [
        ("on_train_batch_end", 2),
        ("on_train_batch_end", 9),
        ("on_validation_end", 2),
        ("on_train_epoch_end", 2),
    ]
    assert_resumes(Small, make, tmp_path / "a.ckpt", moments, max_epochs=3)


def test_validation_that_is_resumed_is_of_the_average(tmp_path: Path) -> None:
    def validated(extra: list[Callback], resume: Path | None = None) -> list[Any]:
        weights = Weights()
        trainer = quiet(
            callbacks=[EMAWeightAveraging(decay=0.5), weights, *extra],
            enable_checkpointing=bool(extra),
            max_epochs=2,
        )
        trainer.fit(Small(), loader(12), loader(4, 1), ckpt_path=resume)
        return [w.tolist() for w in [*weights.validated, *weights.trained[-1:]]]

    whole = validated([])
    for hook, done in (("on_validation_batch_end", 2), ("on_validation_start", 0)):
        path = tmp_path / f"{hook}.ckpt"
        with pytest.raises(KeyboardInterrupt):
            validated([Interrupt(hook, max(done, 1), path)])
        assert validated([], path) == whole[done:]


def test_file_of_a_failed_validation_holds_both_sets_the_right_way(
    tmp_path: Path,
) -> None:
    class Failure(Exception):
        pass

    class Fail(Callback):
        def on_validation_batch_end(self, trainer: Any, *args: Any) -> None:
            if not trainer.sanity_checking:
                trainer.save_checkpoint(tmp_path / "inside.ckpt")
                raise Failure

    weights, module = Weights(), Small()
    callbacks = [WeightAveraging(), weights, Fail(), OnExceptionCheckpoint(tmp_path)]
    with pytest.raises(Failure):
        fitted(module, callbacks=callbacks, enable_checkpointing=True)
    assert torch.equal(module.layer.weight, weights.trained[-1])
    for name in ("inside", "on_exception"):
        file = torch.load(tmp_path / f"{name}.ckpt", weights_only=True)
        current = file["current_model_state"]["layer.weight"]
        assert torch.equal(current, weights.trained[-1])
        assert torch.equal(file["state_dict"]["layer.weight"], weights.validated[-1])


def test_evaluating_a_checkpoint_evaluates_its_weights(tmp_path: Path) -> None:
    callbacks = [WeightAveraging(), ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)]
    module = Small()
    trainer = fitted(
        module, callbacks=callbacks, max_epochs=3, enable_checkpointing=True
    )
    first = tmp_path / "epoch=0.ckpt"
    trainer.validate(module, loader(4), ckpt_path=first, verbose=False)
    saved = torch.load(first, weights_only=True)["state_dict"]["layer.weight"]
    assert torch.equal(module.layer.weight, saved)


def test_plain_checkpoint_begins_the_average(tmp_path: Path) -> None:
    trainer = fitted(Small())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    callback = WeightAveraging()
    resumed = quiet(callbacks=[callback], max_epochs=1)
    module = Small()
    with pytest.warns(UserWarning, match="without weight averaging"):
        resumed.fit(module, loader(), ckpt_path=tmp_path / "a.ckpt")
    trained = trainer.lightning_module.state_dict()["layer.weight"]
    assert torch.equal(module.layer.weight, trained)


def test_layers_of_configure_model_are_averaged() -> None:
    def configure_model(self: Any) -> None:
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(4, 1)

    weights = Weights()
    module = variant(configure_model=configure_model)
    fitted(module, callbacks=[WeightAveraging(device="cpu"), weights])
    mean = torch.stack(weights.trained).mean(0)
    torch.testing.assert_close(module.layer.weight.detach(), mean)


def test_own_choice_of_moments() -> None:
    class Third(WeightAveraging):
        def should_update(
            self, step_idx: int | None = None, epoch_idx: int | None = None
        ) -> bool:
            return step_idx == 2

    weights, module = Weights(), Small()
    fitted(module, callbacks=[Third(), weights])
    assert torch.equal(module.layer.weight, weights.trained[2])


def test_count_of_averages_is_not_read_from_a_device() -> None:
    callback = WeightAveraging()
    fitted(Small(), callbacks=[callback])
    average = callback._average_model
    assert average is not None
    assert average.n_averaged.device.type == "cpu"
    assert int(average.n_averaged) == 4
    assert averaging_module.AveragedModel is type(average)


def test_weights_alone_that_are_saved_while_validating_are_the_average(
    tmp_path: Path,
) -> None:
    class Save(Callback):
        def on_validation_batch_end(self, trainer: Any, *args: Any) -> None:
            trainer.save_checkpoint(tmp_path / "inside.ckpt", weights_only=True)

    weights = Weights()
    fitted(Small(), callbacks=[EMAWeightAveraging(decay=0.5), weights, Save()])
    saved = torch.load(tmp_path / "inside.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(saved["layer.weight"], weights.validated[-1])
    assert not torch.equal(saved["layer.weight"], weights.trained[-1])
