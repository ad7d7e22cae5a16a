"""A fit with a gradient scaler goes as the reference's, number by number.

There is no accelerator here: the scaler is the one that torch has for the CPU, and
gradients really overflow.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from recording import OURS, REFERENCE, data, quiet_trainer, small_module
from test_precision import BOTH_WAYS, scaled
from torch.optim import SGD, Adam

pytestmark = pytest.mark.filterwarnings("ignore")


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


def test_keys_of_a_scaled_checkpoint_are_the_reference_ones(tmp_path: Path) -> None:
    def precision_entry(namespace: str) -> Any:
        module = scaled_module(namespace, Story(), OVERFLOWING)()
        trainer = quiet_trainer(namespace, plugins=scaled(namespace), max_epochs=1)
        trainer.fit(module, data(8))
        trainer.save_checkpoint(tmp_path / "x.ckpt")
        loaded = torch.load(tmp_path / "x.ckpt", weights_only=False)
        return loaded["MixedPrecision"]

    assert precision_entry(OURS) == precision_entry(REFERENCE)
