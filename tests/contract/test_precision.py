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
from recording import data, quiet_trainer, small_module
from torch.amp import GradScaler
from torch.optim import SGD, Adam

OURS, REFERENCE = "lightgen_runtime", "lightning"
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


def dtype_recorder(namespace: str, log: list[Any]) -> Any:
    """Return a module that notes dtypes, defaults and autocasting in all its hooks."""

    class Recorder(small_module(namespace)):  # type: ignore[misc]
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

        def forward(self, batch: Any) -> Any:
            x, _ = batch
            output = self.layer(x)
            self.note("forward", *batch, output, torch.ones(1), output.pow(2).mean())
            return output

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

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val_loss", self(batch).pow(2).mean())

        def test_step(self, batch: Any, batch_idx: int) -> None:
            self(batch)

        def predict_step(self, batch: Any, batch_idx: int) -> Any:
            return self(batch)

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


# ---- a scaler ----


class Story:
    """What happened to the numbers in a fit with a scaler."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []

    def note(self, where: str, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            value = value.detach().double().tolist()
        self.events.append((where, repr(value)))  # NaN is to equal NaN


def scaled_module(namespace: str, story: Story, factors: list[Any]) -> type[Any]:
    """Return a module class whose losses are multiplied by `factors`, None: no loss."""

    class Model(small_module(namespace)):  # type: ignore[misc]
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            factor = factors[batch_idx % len(factors)]
            if factor is None:
                return None
            loss = self.layer(batch).float().pow(2).mean() * factor
            story.note("training_step", loss)
            return loss

        def on_before_backward(self, loss: Any) -> None:
            story.note("on_before_backward", loss)

        def on_after_backward(self) -> None:
            story.note("on_after_backward", self.layer.weight.grad)

        def on_before_optimizer_step(self, optimizer: Any) -> None:
            story.note("on_before_optimizer_step", self.layer.weight.grad)

        def on_before_zero_grad(self, optimizer: Any) -> None:
            story.note("on_before_zero_grad", self.layer.weight)

        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            story.note("on_train_batch_end", outputs and outputs["loss"])
            story.note("weight", self.layer.weight)
            story.note("scale", self.trainer.scaler.get_scale())
            story.note("global_step", self.global_step)

    return Model


def configure_gradient_clipping(
    self: Any,
    optimizer: Any,
    gradient_clip_val: Any = None,
    gradient_clip_algorithm: Any = None,
) -> None:
    self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
    self.story.note("clipped", self.layer.weight.grad)


def optimizer_step(
    self: Any, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
) -> None:
    optimizer.step(closure=optimizer_closure)
    self.story.note("optimizer_step", self.layer.weight)


def backward(self: Any, loss: Any) -> None:
    self.story.note("backward", loss)
    loss.backward()


OVERFLOWING = [1.0, 1e38, 1.0, 1.0]
SCALED: dict[str, tuple[list[Any], dict[str, Any], dict[str, Any]]] = {
    "plain": ([1.0], {}, {}),
    "overflow": (OVERFLOWING, {}, {}),
    "NaN": ([1.0, float("nan")], {}, {}),
    "clip by norm": (OVERFLOWING, {}, {"gradient_clip_val": 0.01}),
    "clip by value": (
        OVERFLOWING,
        {},
        {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"},
    ),
    "own clipping": (
        OVERFLOWING,
        {"configure_gradient_clipping": configure_gradient_clipping},
        {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "norm"},
    ),
    "own stepping": (
        OVERFLOWING,
        {"optimizer_step": optimizer_step, "backward": backward},
        {},
    ),
    "accumulate": (OVERFLOWING, {}, {"accumulate_grad_batches": 2}),
    "no loss": ([1.0, None], {}, {}),
    "max steps": (OVERFLOWING, {}, {"max_steps": 5, "max_epochs": 9}),
}


def scaled_story(namespace: str, case: str) -> Story:
    factors, members, flags = SCALED[case]
    story = Story()
    base = scaled_module(namespace, story, factors)
    module = type("Module", (base,), {"story": story, **members})()
    trainer = quiet_trainer(
        namespace, plugins=[scaled(namespace)], **{"max_epochs": 2, **flags}
    )
    trainer.fit(module, data(8), data(4))
    story.note("end", (trainer.global_step, trainer.scaler.state_dict()))
    return story


@pytest.mark.parametrize("case", SCALED)
def test_scaled_fit_goes_as_in_the_reference(case: str) -> None:
    ours = scaled_story(OURS, case).events
    assert ours == scaled_story(REFERENCE, case).events
    assert len(ours) > 20


def manual_module(namespace: str, story: Story, factors: list[float]) -> Any:
    class Manual(small_module(namespace)):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False
            self.other = torch.nn.Linear(4, 1)

        def loss_of(self, layer: Any, batch: Any, batch_idx: int) -> Any:
            factor = factors[batch_idx % len(factors)]
            return layer(batch).float().pow(2).mean() * factor

        def training_step(self, batch: Any, batch_idx: int) -> None:
            story.note("autocast", torch.is_autocast_enabled("cpu"))
            first, second = self.optimizers()
            loss = self.loss_of(self.layer, batch, batch_idx)
            first.zero_grad()
            self.manual_backward(loss)
            first.step()

            def closure() -> None:
                second.zero_grad()
                self.manual_backward(self.loss_of(self.other, batch, batch_idx + 1))

            second.step(closure=closure)
            story.note("weights", (self.layer.weight.sum(), self.other.weight.sum()))

        def on_before_backward(self, loss: Any) -> None:
            story.note("on_before_backward", loss)

        def on_before_optimizer_step(self, optimizer: Any) -> None:
            story.note("step", optimizer.param_groups[0]["params"][0].grad)

        def configure_optimizers(self) -> Any:
            return [
                SGD(self.layer.parameters(), lr=0.1),
                Adam(self.other.parameters(), lr=0.1),
            ]

    return Manual()


def test_scaled_manual_optimization_goes_as_in_the_reference() -> None:
    def story(namespace: str) -> list[Any]:
        story = Story()
        module = manual_module(namespace, story, OVERFLOWING)
        trainer = quiet_trainer(namespace, plugins=scaled(namespace), max_epochs=3)
        trainer.fit(module, data(8))
        story.note("end", (trainer.global_step, trainer.scaler.state_dict()))
        return story.events

    ours = story(OURS)
    assert ours == story(REFERENCE)
    assert any("inf" in value for _, value in ours)


@pytest.mark.parametrize("kind", ["LBFGS", "fused and clipped"])
def test_what_a_scaler_cannot_do_is_refused_by_both(kind: str) -> None:
    def configure_optimizers(self: Any) -> Any:
        if kind == "LBFGS":
            return torch.optim.LBFGS(self.parameters())
        return Adam(self.parameters(), fused=True)

    for namespace in (OURS, REFERENCE):
        base = scaled_module(namespace, Story(), [1.0])
        members = {"configure_optimizers": configure_optimizers}
        module = type("Module", (base,), members)()
        flags = {"gradient_clip_val": 1.0} if kind != "LBFGS" else {}
        trainer = quiet_trainer(namespace, plugins=scaled(namespace), **flags)
        with pytest.raises(Exception, match=r"LBFGS|fused"):
            trainer.fit(module, data(8))


def test_fused_optimizer_steps_as_in_the_reference() -> None:
    def story(namespace: str) -> list[Any]:
        def configure_optimizers(self: Any) -> Any:
            return Adam(self.parameters(), lr=0.1, fused=True)

        story = Story()
        base = scaled_module(namespace, story, OVERFLOWING)
        members = {"configure_optimizers": configure_optimizers}
        module = type("Module", (base,), members)()
        trainer = quiet_trainer(namespace, plugins=scaled(namespace), max_epochs=2)
        trainer.fit(module, data(8))
        return story.events

    assert story(OURS) == story(REFERENCE)


# ---- checkpoints ----


@pytest.mark.parametrize(("writer", "reader"), BOTH_WAYS)
def test_scaler_goes_on_from_the_other_package(
    writer: str, reader: str, tmp_path: Path
) -> None:
    def fit(namespace: str, epochs: int, resume: Path | None = None) -> Any:
        module = scaled_module(namespace, Story(), OVERFLOWING)()
        precision = scaled(namespace, init_scale=2.0**10)
        trainer = quiet_trainer(namespace, plugins=precision, max_epochs=epochs)
        trainer.fit(module, data(8), ckpt_path=resume)
        return trainer

    path = tmp_path / "half.ckpt"
    fit(writer, 1).save_checkpoint(path)
    resumed = fit(reader, 3, path)
    whole = fit(writer, 3)
    assert resumed.global_step == whole.global_step
    assert resumed.scaler.state_dict() == whole.scaler.state_dict()
    assert resumed.scaler.get_scale() != 2.0**10
    for name, weights in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], weights)


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


def test_keys_of_a_scaled_checkpoint_are_the_reference_ones(tmp_path: Path) -> None:
    def precision_entry(namespace: str) -> Any:
        module = scaled_module(namespace, Story(), OVERFLOWING)()
        trainer = quiet_trainer(namespace, plugins=scaled(namespace), max_epochs=1)
        trainer.fit(module, data(8))
        trainer.save_checkpoint(tmp_path / "x.ckpt")
        loaded = torch.load(tmp_path / "x.ckpt", weights_only=False)
        return loaded["MixedPrecision"]

    assert precision_entry(OURS) == precision_entry(REFERENCE)


# ---- plugins ----


def test_own_checkpoint_io_writes_and_reads(tmp_path: Path) -> None:
    def calls(namespace: str) -> list[Any]:
        io = importlib.import_module(f"{namespace}.pytorch.plugins.io")
        log: list[Any] = []

        class Recording(io.TorchCheckpointIO):  # type: ignore[name-defined,misc]
            def save_checkpoint(
                self, checkpoint: Any, path: Any, storage_options: Any = None
            ) -> None:
                log.append(("save", Path(path).name, storage_options))
                super().save_checkpoint(checkpoint, path)

            def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> Any:
                log.append(("load", Path(path).name))
                return super().load_checkpoint(path, *args, **kwargs)

            def remove_checkpoint(self, path: Any) -> None:
                log.append(("remove", Path(path).name))
                super().remove_checkpoint(path)

            def teardown(self) -> None:
                log.append(("teardown",))

        callbacks = importlib.import_module(f"{namespace}.pytorch.callbacks")
        folder = tmp_path / namespace
        trainer = quiet_trainer(
            namespace,
            plugins=[Recording()],
            enable_checkpointing=True,
            callbacks=[callbacks.ModelCheckpoint(folder)],
            max_epochs=3,
        )
        trainer.fit(small_module(namespace)(), data(8))
        trainer.save_checkpoint(folder / "mine.ckpt", storage_options={"a": 1})
        trainer.validate(
            trainer.model, data(4), ckpt_path=folder / "mine.ckpt", verbose=False
        )
        return log

    ours = calls(OURS)
    assert ours == calls(REFERENCE)
    assert ("save", "mine.ckpt", {"a": 1}) in ours
    assert ("load", "mine.ckpt") in ours


def test_own_precision_is_asked_as_by_the_reference() -> None:
    def calls(namespace: str) -> list[str]:
        from contextlib import contextmanager

        log: list[str] = []

        class Own(plugin(namespace, "Precision")):  # type: ignore[misc]
            precision = "mine"

            def convert_module(self, module: Any) -> Any:
                log.append("convert_module")
                return module

            def convert_input(self, data: Any) -> Any:
                log.append("convert_input")
                return data

            @contextmanager
            def module_init_context(self) -> Any:
                log.append("module_init_context")
                yield

            @contextmanager
            def forward_context(self) -> Any:
                log.append("enter")
                yield
                log.append("leave")

            def clip_gradients(self, *args: Any, **kwargs: Any) -> None:
                log.append("clip_gradients")

            def teardown(self) -> None:
                log.append("teardown")

        def configure_model(self: Any) -> None:
            log.append("configure_model")

        members = {"configure_model": configure_model}
        module = type("Module", (small_module(namespace),), members)()
        trainer = quiet_trainer(
            namespace, plugins=Own(), max_epochs=1, gradient_clip_val=1.0
        )
        trainer.fit(module, data(4), data(4))
        trainer.predict(module, data(4))
        assert trainer.precision == "mine"
        return log

    assert calls(OURS) == calls(REFERENCE)


CONTRADICTIONS = ["flag and plugin", "two of a kind", "not a plugin", "bad name"]


@pytest.mark.parametrize("kind", CONTRADICTIONS)
def test_contradictory_plugins_are_refused_by_both(kind: str) -> None:
    for namespace in (OURS, REFERENCE):
        half, double = (
            plugin(namespace, name)() for name in ("HalfPrecision", "DoublePrecision")
        )
        flags: dict[str, Any] = {
            "flag and plugin": {"precision": "16-true", "plugins": half},
            "two of a kind": {"plugins": [half, double]},
            "not a plugin": {"plugins": ["16-true"]},
            "bad name": {"precision": "16-truth"},
        }[kind]
        with pytest.raises(Exception, match=r"recision|plugins"):
            quiet_trainer(namespace, **flags)
