"""What a run computes in, and what is refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from resuming import assert_resumes
from small_runs import Small, fitted, loader, numbers, quiet, variant
from torch.amp import GradScaler

from lightgen_runtime import Callback, LightningModule
from lightgen_runtime.plugins import (
    DoublePrecision,
    HalfPrecision,
    MixedPrecision,
    Precision,
)
from lightgen_runtime.precision.choose import choose_precision
from lightgen_runtime.utilities.exceptions import MisconfigurationException

TRUE = {
    "16-true": torch.float16,
    "bf16-true": torch.bfloat16,
    "32-true": torch.float32,
    "64-true": torch.float64,
}


# ---- names ----


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ("16-mixd", ["precision='16-mixd'", "Did you mean '16-mixed'?"]),
        ("bf16_mixed", ["'bf16_mixed'", "Did you mean 'bf16-mixed'?"]),
        ("double", ["'double'", "'64-true'"]),
        (8, ["precision=8", "'16-mixed'"]),
        (32.0, ["precision=32.0", "'32-true'"]),
        (True, ["precision=True"]),
        (["32-true"], ["precision=['32-true']"]),
        (
            "transformer-engine-float16",
            ["'transformer-engine-float16'", "belong to the model"],
        ),
    ],
)
def test_unknown_name_is_refused_with_the_nearest(given: Any, parts: list[str]) -> None:
    with pytest.raises(MisconfigurationException) as caught:
        quiet(precision=given)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("make", "accepted"),
    [
        (lambda: MixedPrecision("32-true", "cpu"), "'16-mixed', 'bf16-mixed'"),
        (lambda: HalfPrecision("16-mixed"), "'16-true', 'bf16-true'"),
    ],
)
def test_plugin_of_a_name_it_does_not_have_is_refused(make: Any, accepted: str) -> None:
    with pytest.raises(MisconfigurationException, match=f"accepted are {accepted}"):
        make()


@pytest.mark.parametrize("given", [16, "16", "bf16"])
def test_short_name_that_could_mean_two_things_warns(
    given: Any, recwarn: pytest.WarningsRecorder
) -> None:
    warnings.simplefilter("always")
    assert quiet(precision=given).precision == "bf16-mixed"
    texts = [str(warning.message) for warning in recwarn.list]
    assert f"precision={given!r})` stands for" in texts[0]
    assert len(texts) == (1 if given == "bf16" else 2)  # float16 on a CPU warns as well


def test_16_mixed_on_a_cpu_says_what_it_computes_in() -> None:
    with pytest.warns(UserWarning, match=r"16-mixed.*CPU.*bfloat16"):
        assert quiet(precision="16-mixed").precision == "bf16-mixed"


def test_accelerators_get_what_they_ask_for() -> None:
    on_mps = choose_precision("16-mixed", "mps")
    assert isinstance(on_mps, MixedPrecision)
    assert (on_mps.precision, on_mps.device) == ("16-mixed", "mps")
    assert isinstance(on_mps.scaler, GradScaler)
    on_cuda = choose_precision("bf16-mixed", "cuda")
    assert isinstance(on_cuda, MixedPrecision)
    assert (on_cuda.device, on_cuda.scaler) == ("cuda", None)
    with pytest.raises(MisconfigurationException, match="MPS devices have no 64-bit"):
        choose_precision("64-true", "mps")


def test_bfloat16_has_no_use_for_a_scaler() -> None:
    with pytest.raises(MisconfigurationException, match="needs no scaler"):
        MixedPrecision("bf16-mixed", "cpu", scaler=GradScaler("cpu"))


# ---- dtypes ----


@pytest.mark.parametrize("precision", TRUE)
def test_module_says_its_dtype_with_and_without_parameters(precision: str) -> None:
    class Child(LightningModule):
        pass

    class Parent(Small):
        def __init__(self) -> None:
            super().__init__()
            self.child = Child()

    module = Parent()
    fitted(module, precision=precision)
    dtype = TRUE[precision]
    assert module.dtype == module.child.dtype == module.layer.weight.dtype == dtype
    assert module.device == module.child.device == torch.device("cpu")


def test_default_dtype_comes_back_after_an_error() -> None:
    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        assert torch.get_default_dtype() == torch.float64
        raise RuntimeError("in the step")

    with pytest.raises(RuntimeError, match="in the step"):
        fitted(variant(training_step=training_step), precision="64-true")
    assert torch.get_default_dtype() == torch.float32


def test_autocasting_ends_with_the_step_that_failed() -> None:
    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        assert torch.is_autocast_enabled("cpu")
        raise RuntimeError("in the step")

    with pytest.raises(RuntimeError, match="in the step"):
        fitted(variant(training_step=training_step), precision="bf16-mixed")
    assert not torch.is_autocast_enabled("cpu")


def test_weights_used_without_gradients_first_get_gradients_later() -> None:
    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        with torch.no_grad():
            self(batch)
        return self(batch).pow(2).mean()

    module = variant(training_step=training_step)
    before = module.layer.weight.detach().clone()
    fitted(module, precision="bf16-mixed")
    assert not torch.equal(module.layer.weight, before)


def test_full_precision_adds_nothing_to_a_step() -> None:
    def step() -> None:
        pass

    assert Precision().wrap(step) is step
    trainer = fitted(Small())
    assert trainer._run is not None
    assert trainer._run.scaling is None
    assert trainer._run.source._transfer() is None


def test_batches_are_converted_before_hooks_see_them() -> None:
    seen = []

    def on_before_batch_transfer(self: Any, batch: Any, dataloader_idx: int) -> Any:
        seen.append(batch.dtype)
        return batch

    module = variant(on_before_batch_transfer=on_before_batch_transfer)
    fitted(module, precision="64-true", num_sanity_val_steps=0)
    assert seen == [torch.float64] * 6


def test_frozen_dataclass_in_a_batch_is_converted() -> None:
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Record:
        x: torch.Tensor
        label: str

    given = Record(torch.ones(2), "a")
    made = DoublePrecision().convert_input([given])[0]
    assert (made.x.dtype, made.label) == (torch.float64, "a")
    assert given.x.dtype == torch.float32


# ---- checkpoints ----


@pytest.mark.parametrize("precision", [*TRUE, "bf16-mixed"])
def test_resumed_fit_is_the_same_bit_for_bit(precision: str, tmp_path: Path) -> None:
    def make_module() -> Small:
        def configure_optimizers(self: Any) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)

        def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
            loss = self(batch).pow(2).mean()
            self.log("loss", loss, on_epoch=True)
            return loss

        return variant(
            configure_optimizers=configure_optimizers, training_step=training_step
        )

    assert_resumes(
        make_module,
        Callback,
        tmp_path / "x.ckpt",
        [
            ("on_train_batch_end", 3),
            ("on_train_epoch_end", 1),
            ("on_validation_end", 1),
        ],
        precision=precision,
        max_epochs=2,
    )


def test_checkpoint_holds_the_converted_weights(tmp_path: Path) -> None:
    trainer = fitted(Small(), precision="bf16-true")
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    weights = torch.load(tmp_path / "x.ckpt", weights_only=True)["state_dict"]
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    loaded = Small.load_from_checkpoint(tmp_path / "x.ckpt")
    assert loaded.layer.weight.dtype == torch.float32


def test_checkpoint_of_full_precision_goes_on_in_another(tmp_path: Path) -> None:
    fitted(Small(), max_epochs=1).save_checkpoint(tmp_path / "x.ckpt")
    for precision in ("64-true", "bf16-true", "bf16-mixed"):
        module = Small()
        trainer = quiet(precision=precision, max_epochs=2)
        trainer.fit(module, loader(), ckpt_path=tmp_path / "x.ckpt")
        assert trainer.global_step == 8
        assert module.dtype == TRUE.get(precision, torch.float32)


# ---- a precision of one's own ----


def test_own_precision_computes_the_steps() -> None:
    class Positive(Precision):
        """Every batch made positive."""

        precision = "positive"

        def convert_input(self, data: Any) -> Any:
            return data.abs()

    seen = []

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        seen.append(batch)
        return self(batch).pow(2).mean()

    trainer = fitted(variant(training_step=training_step), plugins=Positive())
    assert torch.equal(torch.cat(seen), numbers().abs())
    assert trainer.precision == "positive"
    assert isinstance(trainer.precision_plugin, Positive)
