"""Every precision computes what the reference computes, in the same dtypes.

There is no accelerator here: `16-mixed` is tried with the scaler that torch has for the
CPU, and gradients really overflow.
"""

from __future__ import annotations

import importlib
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from recording import OURS, REFERENCE, data, quiet_trainer, small_module
from torch.amp import GradScaler
from torch.optim import SGD, Adam

BOTH_WAYS = [(OURS, REFERENCE), (REFERENCE, OURS)]
FLAGS = ["32-true", "64-true", "16-true", "bf16-true", "bf16-mixed", "16-mixed"]
ALIASES = [32, "32", 64, "64", 16, "16", "bf16", None]

pytestmark = pytest.mark.filterwarnings("ignore")


def plugin(namespace: str, name: str) -> Any:
    return getattr(importlib.import_module(f"{namespace}.pytorch.plugins"), name)


def scaled(namespace: str, **settings: Any) -> Any:
    """Return `16-mixed` on the CPU, with a scale that grows fast."""
    scaler = GradScaler("cpu", **{"growth_interval": 3, **settings})
    return plugin(namespace, "MixedPrecision")("16-mixed", "cpu", scaler=scaler)


# ---- dtypes ----


def noting(namespace: str, log: list[Any]) -> type[Any]:
    """Return a module class that can note all that a precision may change."""

    class Noting(small_module(namespace)):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("floats", torch.ones(2))
            self.register_buffer("whole", torch.ones(2, dtype=torch.int64))

        def note(self, where: str, *tensors: Any) -> None:
            log.append(
                (
                    where,
                    [tensor.dtype for tensor in tensors],
                    self.layer.weight.dtype,
                    (self.floats.dtype, self.whole.dtype, self.dtype, self.device),
                    torch.get_default_dtype(),
                    torch.is_autocast_enabled("cpu"),
                    torch.is_autocast_cache_enabled(),
                )
            )

        def forward(self, batch: Any) -> Any:
            x, _ = batch
            output = self.layer(x)
            self.note("forward", *batch, output, torch.ones(1), output.pow(2).mean())
            return output

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val_loss", self(batch).pow(2).mean())

        def test_step(self, batch: Any, batch_idx: int) -> None:
            self(batch)

        def predict_step(self, batch: Any, batch_idx: int) -> Any:
            return self(batch)

    return Noting


def dtype_recorder(namespace: str, log: list[Any]) -> Any:
    """Return a module that notes dtypes, defaults and autocasting in all its hooks."""

    class Recorder(noting(namespace, log)):  # type: ignore[misc]
        def setup(self, stage: str) -> None:
            self.note("setup")

        def configure_model(self) -> None:
            self.note("configure_model", torch.ones(1))
            self.late = torch.nn.Linear(1, 1)
            log.append(self.late.weight.dtype)

        def configure_optimizers(self) -> Any:
            self.note("configure_optimizers")
            return super().configure_optimizers()

        def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            self.note("on_before_batch_transfer", *batch)
            return batch

        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            self.note("on_after_batch_transfer", *batch)
            return batch

        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            self.note("on_train_batch_start", *batch)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = self(batch).pow(2).mean()
            self.log("loss", loss)
            return {"loss": loss, "more": self.layer.weight.sum()}

        def on_before_backward(self, loss: Any) -> None:
            self.note("on_before_backward", loss)

        def on_before_optimizer_step(self, optimizer: Any) -> None:
            self.note("on_before_optimizer_step", self.layer.weight.grad)

        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            self.note("on_train_batch_end", outputs["loss"], outputs["more"])

    return Recorder()


def pairs() -> Any:
    rows = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    return torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(rows, torch.arange(4)), batch_size=2
    )


def dtypes_seen(namespace: str, **flags: Any) -> list[Any]:
    log: list[Any] = []
    module = dtype_recorder(namespace, log)
    trainer = quiet_trainer(namespace, max_epochs=1, **flags)
    trainer.fit(module, pairs(), pairs())
    log.append({key: value.dtype for key, value in module.state_dict().items()})
    trainer.validate(module, pairs(), verbose=False)
    trainer.test(module, pairs(), verbose=False)
    predicted = trainer.predict(module, pairs())
    log.append([each.dtype for each in predicted])
    log.append((trainer.precision, module.dtype, torch.get_default_dtype()))
    return log


@pytest.mark.parametrize("precision", FLAGS)
def test_dtypes_are_the_reference_dtypes(precision: str) -> None:
    ours = dtypes_seen(OURS, precision=precision)
    assert ours == dtypes_seen(REFERENCE, precision=precision)
    assert len(ours) > 40


def test_dtypes_with_a_scaler_are_the_reference_dtypes() -> None:
    ours = dtypes_seen(OURS, plugins=scaled(OURS))
    assert ours == dtypes_seen(REFERENCE, plugins=scaled(REFERENCE))
    forward = [entry for entry in ours if str(entry).startswith("('forward'")]
    assert all(torch.float16 in entry[1] for entry in forward)
    assert len(forward) == 12


@pytest.mark.parametrize("given", [*FLAGS, *ALIASES])
def test_flag_comes_to_the_same_precision(given: Any) -> None:
    ours, theirs = (
        quiet_trainer(namespace, precision=given) for namespace in (OURS, REFERENCE)
    )
    assert ours.precision == theirs.precision
    assert type(ours.precision_plugin).__name__ == (
        type(theirs.precision_plugin).__name__
    )
    assert ours.scaler is theirs.scaler is None


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("given", [*FLAGS, *ALIASES])
def test_flag_warns_where_the_reference_warns(
    given: Any, recwarn: pytest.WarningsRecorder
) -> None:
    def warned(namespace: str) -> list[bool]:
        recwarn.clear()
        quiet_trainer(namespace, precision=given)
        texts = [str(warning.message) for warning in recwarn.list]
        return ["precision" in text for text in texts]

    assert warned(OURS) == warned(REFERENCE)


@pytest.mark.parametrize("precision", ["64-true", "16-true", "bf16-true"])
def test_batches_of_any_shape_are_converted_alike(precision: str) -> None:
    from collections import OrderedDict, namedtuple
    from dataclasses import dataclass

    Point = namedtuple("Point", "x y")

    @dataclass
    class Record:
        value: torch.Tensor
        name: str

    ones = torch.ones(2)
    batch = {
        "list": [ones, 1, "text", None],
        "tuple": (ones, ones.long()),
        "named": Point(ones, ones.bool()),
        "ordered": OrderedDict(a=ones),
        "record": Record(ones, "name"),
        "packed": torch.nn.utils.rnn.pack_sequence([torch.ones(2, 1)]),
    }

    def described(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.dtype
        if isinstance(value, dict):
            return type(value), {k: described(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value), [described(part) for part in value]
        if isinstance(value, Record):
            return described(value.value), value.name
        return value

    ours, theirs = (
        quiet_trainer(name, precision=precision).precision_plugin.convert_input(batch)
        for name in (OURS, REFERENCE)
    )
    assert described(ours) == described(theirs)
    assert described(ours) != described(batch)
    assert batch["record"].value.dtype == torch.float32  # type: ignore[attr-defined]


# ---- results ----


def losses_and_weights(namespace: str, optimizer: Any, **flags: Any) -> Any:
    losses: list[Any] = []

    class Model(small_module(namespace)):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Sequential(
                torch.nn.Linear(4, 8),
                torch.nn.LayerNorm(8),
                torch.nn.GELU(),
                torch.nn.Linear(8, 1),
            )

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = torch.nn.functional.mse_loss(self.net(batch), batch[:, :1])
            losses.append(loss.detach().clone())
            return loss

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val_loss", self.net(batch).pow(2).mean())

        def configure_optimizers(self) -> Any:
            return optimizer(self.parameters(), lr=0.01)

    module = Model()
    trainer = quiet_trainer(namespace, max_epochs=3, **flags)
    trainer.fit(module, data(8), data(4))
    return losses, module.state_dict(), float(trainer.callback_metrics["val_loss"])


@pytest.mark.parametrize("precision", FLAGS)
@pytest.mark.parametrize(
    "optimizer", [SGD, partial(Adam, eps=1e-3)], ids=["SGD", "Adam"]
)
@pytest.mark.parametrize(
    "flags",
    [{}, {"gradient_clip_val": 0.1, "accumulate_grad_batches": 2}],
    ids=["plain", "clipped"],
)
def test_losses_and_weights_are_the_reference_ones(
    precision: str, optimizer: Any, flags: dict[str, Any]
) -> None:
    ours = losses_and_weights(OURS, optimizer, precision=precision, **flags)
    theirs = losses_and_weights(REFERENCE, optimizer, precision=precision, **flags)
    assert len(ours[0]) == 12
    assert torch.stack(ours[0]).isfinite().all()
    for one, other in zip(ours[0], theirs[0], strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    for name, weights in theirs[1].items():
        assert torch.equal(ours[1][name], weights), name
    assert ours[2] == pytest.approx(theirs[2], rel=1e-3)


# ---- checkpoints ----


@pytest.mark.parametrize("precision", FLAGS)
@pytest.mark.parametrize(("writer", "reader"), BOTH_WAYS)
def test_checkpoint_of_any_precision_is_evaluated_by_the_other_package(
    writer: str, reader: str, precision: str, tmp_path: Path
) -> None:
    trainer = quiet_trainer(writer, precision=precision, max_epochs=1)
    trainer.fit(small_module(writer)(), data(8))
    path = tmp_path / "x.ckpt"
    trainer.save_checkpoint(path)
    other = quiet_trainer(reader, precision=precision)
    module = small_module(reader)()
    predicted = other.predict(module, data(4), ckpt_path=path)
    expected = trainer.predict(trainer.model, data(4))
    for one, two in zip(predicted, expected, strict=True):
        assert one.dtype == two.dtype
        assert torch.allclose(one, two)
