"""`Trainer(compile=...)`: what is compiled, how often, and that nothing else changes.

Backends that only trace make it quick; graphs, breaks and guards are the same.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from resuming import Model, assert_equal, assert_resumes
from small_runs import Small, loader, message_of, numbers, quiet, variant
from torch import Tensor, nn
from torch._dynamo.utils import counters

from lightgen_runtime import Callback, LightningModule, Trainer
from lightgen_runtime.core.compiled import from_compiled, to_uncompiled
from lightgen_runtime.trainer import launched
from lightgen_runtime.utilities.call_site import function_site

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
    # It looks at all tensors that go into a graph.
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor"),
]
TRACED = {"backend": "eager"}
THROUGH_AUTOGRAD = {"backend": "aot_eager"}


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def graphs() -> int:
    return counters["stats"]["unique_graphs"]


class Logging(Small):
    """Logs in every way, in the middle of the step too."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self(batch).pow(2).mean()
        self.log("loss", loss, on_epoch=True, prog_bar=True)
        loss = loss + self.layer.bias.abs().sum()
        self.log_dict({"sum": loss, "number": 2.0}, on_step=True)
        self.log("most", loss, on_step=False, on_epoch=True, reduce_fx="max")
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self(batch).pow(2).mean(), batch_size=3)


def fitted(module: LightningModule, **flags: Any) -> Trainer:
    trainer = quiet(**{"max_epochs": 2, "log_every_n_steps": 2, **flags})
    trainer.fit(module, loader(10), loader(4))
    return trainer


def assert_same_fit(ours: Trainer, theirs: Trainer) -> None:
    modules = (ours.lightning_module, theirs.lightning_module)
    assert_equal(modules[0].state_dict(), modules[1].state_dict(), "weights")
    assert_equal(ours.callback_metrics, theirs.callback_metrics, "metrics")


@pytest.mark.parametrize("options", [TRACED, THROUGH_AUTOGRAD])
def test_compiled_fit_is_the_one_as_written(options: dict[str, Any]) -> None:
    ours = fitted(Logging(), compile=options)
    assert not counters["graph_break"]
    assert graphs() == 2  # training and validation
    assert_same_fit(ours, fitted(Logging()))


@pytest.mark.parametrize(
    "flags",
    [
        {"accumulate_grad_batches": 2, "gradient_clip_val": 0.1},
        {"precision": "bf16-mixed"},
        {"precision": "bf16-true"},
        {"profiler": "simple"},
    ],
    ids=lambda flags: next(iter(flags)) + "=" + str(next(iter(flags.values()))),
)
def test_other_flags_mean_the_same(flags: dict[str, Any]) -> None:
    ours = fitted(Logging(), compile=THROUGH_AUTOGRAD, **flags)
    assert not counters["graph_break"]
    assert graphs() == 2
    assert_same_fit(ours, fitted(Logging(), **flags))


def test_step_number_that_is_not_used_compiles_nothing_anew() -> None:
    quiet(compile=TRACED, max_epochs=3).fit(Small(), loader(40))
    assert graphs() == 1


@pytest.mark.parametrize(
    "number", ["batch_idx", "self.global_step", "self.current_epoch"]
)
def test_step_number_that_is_used_compiles_a_few_times(number: str) -> None:
    def training_step(self: Any, batch: Any, batch_idx: int) -> Tensor:
        used = {
            "batch_idx": lambda: batch_idx,
            "self.global_step": lambda: self.global_step,
            "self.current_epoch": lambda: self.current_epoch,
        }[number]()
        return self(batch).pow(2).mean() * (1 + 0.01 * used)

    flags = {"max_epochs": 8, "limit_train_batches": 12}
    ours = quiet(compile=TRACED, **flags)
    ours.fit(variant(training_step=training_step), loader(40))
    # That of 0, that of 1 (which torch takes for constants), and that of all others.
    assert graphs() <= 3
    theirs = quiet(**flags)
    theirs.fit(variant(training_step=training_step), loader(40))
    assert_same_fit(ours, theirs)


def test_shorter_last_batch_compiles_once_more() -> None:
    quiet(compile=TRACED, max_epochs=3).fit(Small(), loader(11, batch_size=4))
    assert graphs() == 2


def test_hooks_stay_outside_of_the_graph() -> None:
    called: list[bool] = []

    class Hooked(Logging):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            called.append(torch.compiler.is_compiling())

        def on_before_backward(self, loss: Tensor) -> None:
            called.append(torch.compiler.is_compiling())
            self.log("in_hook", loss)

    trainer = fitted(Hooked(), compile=TRACED)
    assert len(called) == 20
    assert not any(called)
    assert "in_hook" in trainer.callback_metrics
    assert not counters["graph_break"]


def test_hook_of_a_layer_is_traced_with_the_step() -> None:
    module = Small()
    module.layer.register_forward_hook(lambda layer, given, output: output * 0.0)
    before = module.layer.weight.detach().clone()
    quiet(compile=TRACED).fit(module, loader())
    assert torch.equal(module.layer.weight, before)


def test_all_stages_are_compiled() -> None:
    module, trainer = Logging(), quiet(compile=TRACED)
    trainer.validate(module, loader(4), verbose=False)
    assert graphs() == 1
    trainer.test(module, loader(4), verbose=False)
    assert graphs() == 2
    predicted = trainer.predict(module, loader(4))
    assert graphs() == 3
    assert_equal(predicted, quiet().predict(module, loader(4)), "predictions")


def test_modes_of_layers_are_seen() -> None:
    class Dropped(Small):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Sequential(nn.Linear(4, 1), nn.Dropout(1.0))  # type: ignore[assignment]

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val_loss", self(batch).abs().mean())

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            output = self(batch)
            self.log("left", output.abs().sum())
            return output.mean()

    trainer = fitted(Dropped(), compile=TRACED)
    assert trainer.callback_metrics["left"] == 0
    assert trainer.callback_metrics["val_loss"] > 0


def test_parts_are_compiled_where_optimization_is_by_hand() -> None:
    class Two(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.automatic_optimization = False
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 1)

        def training_step(self, batch: Any, batch_idx: int) -> None:
            one, other = self.optimizers()  # type: ignore[misc]
            for optimizer in (one, other):
                loss = self.second(self.first(batch)).pow(2).mean()
                optimizer.zero_grad()
                self.manual_backward(loss)
                optimizer.step()
                self.log("loss", loss)

        def configure_optimizers(self) -> Any:
            return [
                torch.optim.SGD(part.parameters(), lr=0.1)
                for part in (self.first, self.second)
            ]

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val_loss", self.first(batch).pow(2).mean())

    ours = fitted(Two(), compile=THROUGH_AUTOGRAD)
    assert not counters["graph_break"]
    assert graphs() == 3  # two parts, one of which without gradients too
    assert_same_fit(ours, fitted(Two()))
    assert ours.lightning_module.first._compiled_call_impl is None


def test_losses_by_name_share_a_graph() -> None:
    class Named(Whole):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            output = self.head(self.net(batch))
            return {"net": output.pow(2).mean(), "head": (output - 1).abs().mean()}

        def configure_optimizers(self) -> Any:
            return {
                "net": torch.optim.SGD(self.net.parameters(), lr=0.1),
                "head": torch.optim.SGD(self.head.parameters(), lr=0.2),
            }

    ours = quiet(compile=THROUGH_AUTOGRAD)
    ours.fit(Named(), loader(10))
    assert not counters["graph_break"]
    assert graphs() == 1
    theirs = quiet()
    theirs.fit(Named(), loader(10))
    assert_same_fit(ours, theirs)


def test_error_in_a_step_leaves_the_module_as_it_was() -> None:
    def training_step(self: Any, batch: Any, batch_idx: int) -> Tensor:
        self.log("loss", batch.sum())
        return self.layer(batch[:, :2])

    module = variant(training_step=training_step)
    with pytest.raises(RuntimeError, match="reduction dim"):
        quiet(compile=TRACED).fit(module, loader())
    import torch._dynamo.config as settings

    assert not settings.allow_unspec_int_on_nn_module
    assert "training_step" not in vars(module)


def test_wrong_value_to_log_is_refused_as_ever() -> None:
    def training_step(self: Any, batch: Any, batch_idx: int) -> Tensor:
        self.log("rows", batch)
        return self(batch).mean()

    trainer = quiet(compile=TRACED)
    message = message_of(trainer.fit, variant(training_step=training_step), loader())
    assert "`self.log('rows', ...)` got a tensor of shape (2, 4)" in message


def test_numbers_of_numpy_are_logged() -> None:
    def training_step(self: Any, batch: Any, batch_idx: int) -> Tensor:
        self.log("number", np.float32(1.5))
        self.log("mean", np.mean([1.0, 2.0]))
        return self(batch).mean()

    trainer = quiet(compile=TRACED)
    trainer.fit(variant(training_step=training_step), loader(2))
    assert trainer.callback_metrics == {"number": 1.5, "mean": 1.5}


def test_place_of_a_logged_value_is_its_step() -> None:
    sites: list[str] = []

    class Looking(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            sites.extend(slot.site for slot in trainer._run.stores["train"].slots)

    quiet(compile=TRACED, callbacks=Looking()).fit(Logging(), loader(2))
    assert set(sites) == {function_site(Logging.training_step)}


def test_value_changed_behind_its_log_is_logged_as_it_was() -> None:
    def training_step(self: Any, batch: Any, batch_idx: int) -> Tensor:
        seen = batch.sum()
        self.log("seen", seen)
        seen.mul_(0.0)
        return self(batch).mean()

    trainer = quiet(compile=THROUGH_AUTOGRAD)
    trainer.fit(variant(training_step=training_step), loader(2))
    assert trainer.callback_metrics["seen"] == pytest.approx(numbers(2).sum().item())


def test_resumed_compiled_fit_is_the_same(tmp_path: Path) -> None:
    class Steady(Model):
        """Draws no random numbers, which a compiler may draw in another order."""

        def __init__(self) -> None:
            torch.manual_seed(0)
            super().__init__()
            self.net[1] = nn.Identity()

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val_loss", self.net(batch).pow(2).mean())

    moments = [("on_train_batch_end", 3), ("on_validation_batch_end", 3)]
    assert_resumes(
        Steady,
        Callback,
        tmp_path / "x.ckpt",
        moments,
        max_epochs=2,
        compile=TRACED,
    )


# ---- the flag ----


@pytest.mark.parametrize(
    ("flag", "parts"),
    [
        ("max-autotuned", ["accepted modes", "mean 'max-autotune'"]),
        ({"modes": "default"}, ["no argument 'modes'", "mean 'mode'"]),
        ({"mode": "default", "options": {}, "x": 1}, ["no argument 'x'"]),
        ({"mode": "default", "options": {"trace.enabled": True}}, ["one of the two"]),
        (3, ["True, a mode"]),
    ],
)
def test_wrong_flag_is_refused(flag: Any, parts: list[str]) -> None:
    message = message_of(quiet, compile=flag)
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("flag", "options"),
    [
        (None, None),
        (False, None),
        (True, {}),
        ("max-autotune", {"mode": "max-autotune"}),
        ({"dynamic": False, "mode": None}, {"dynamic": False, "mode": None}),
    ],
)
def test_flag_stands_for_arguments_of_torch(flag: Any, options: Any) -> None:
    assert quiet(compile=flag).compile_options == options


@pytest.mark.parametrize(
    "option", [{"mode": "max-autotune"}, {"options": {"max_autotune": True}}]
)
def test_options_reach_the_compiler(option: dict[str, Any]) -> None:
    seen: list[Any] = []

    def backend(graph: Any, inputs: Any, **given: Any) -> Any:
        seen.append(given)
        return graph.forward

    quiet(compile={"backend": backend, **option}).fit(Small(), loader(2))
    assert seen == [option]


def test_break_is_an_error_where_that_is_asked_for() -> None:
    def training_step(self: Any, batch: Any, batch_idx: int) -> Tensor:
        torch._dynamo.graph_break()
        return self(batch).mean()

    trainer = quiet(compile={**TRACED, "fullgraph": True})
    with pytest.raises(torch._dynamo.exc.Unsupported):
        trainer.fit(variant(training_step=training_step), loader(2))


def test_modes_are_those_of_torch() -> None:
    from torch._inductor import list_mode_options

    from lightgen_runtime.trainer.compile_flag import MODES

    known = set(list_mode_options())
    assert set(MODES) <= known
    # What is left out of them serves torch's own development.
    assert all(name in MODES or "lite" in name for name in known), known


def test_missing_compiler_is_explained() -> None:
    def backend(*_: Any) -> Any:
        raise RuntimeError("No working C++ compiler found in torch._inductor.config")

    with pytest.raises(RuntimeError) as caught:
        quiet(compile={"backend": backend}).fit(Small(), loader())
    notes = "".join(getattr(caught.value, "__notes__", [str(caught.value)]))
    assert "the machine needs a C++ compiler" in notes


# ---- modules that the user compiled ----


def test_compiled_module_is_fitted_compiled() -> None:
    module = Logging()
    trainer = quiet(max_epochs=2, log_every_n_steps=2)
    trainer.fit(torch.compile(module, backend="eager"), loader(10), loader(4))
    assert graphs() == 2
    assert trainer.lightning_module is module
    assert_same_fit(trainer, fitted(Logging()))
    trainer.validate(module, loader(4), verbose=False)
    assert graphs() == 3  # in inference mode
    trainer.validate(to_uncompiled(module), loader(4), verbose=False)
    assert graphs() == 3


def test_compiled_module_that_cannot_be_sent_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def started(*_: Any) -> None:
        raise InterruptedError

    monkeypatch.setattr(launched, "run_in_processes", started)
    trainer = quiet(accelerator="cpu", devices=2, strategy="ddp_spawn")
    module = torch.compile(Small(), backend="eager")
    with (
        pytest.warns(UserWarning, match="Small runs as it is written"),
        pytest.raises(InterruptedError),
    ):
        trainer.fit(module, loader(4))


def test_compiled_module_of_something_else_is_refused() -> None:
    net: Any = torch.compile(nn.Linear(4, 1), backend="eager")
    assert "`LightningModule` is needed" in message_of(quiet().fit, net, loader())
    assert "around Linear" in message_of(from_compiled, net)
    assert "has not been compiled" in message_of(to_uncompiled, Small())


def test_copy_of_a_compiled_module_is_one_as_written() -> None:
    module = from_compiled(torch.compile(Small(), backend="eager"))
    module.compile(backend="eager")
    copied = copy.deepcopy(module)
    assert copied.__dict__["_compiles_with"] is None
    assert torch.equal(copied(numbers()), module.layer(numbers()))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))

    def forward(self, x: Tensor) -> Any:
        return self.inner(x)


class Whole(LightningModule):
    """A net in two parts."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = Net()
        self.head = nn.Linear(3, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss: Tensor = self.head(self.net(batch)).pow(2).mean()
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.1)


class InInit(Whole):
    def __init__(self) -> None:
        super().__init__()
        self.net = torch.compile(self.net, backend="eager")  # type: ignore[assignment]


class InSetup(Whole):
    def setup(self, stage: str) -> None:
        self.net = torch.compile(self.net, backend="eager")  # type: ignore[assignment]


class InConfigureModel(Whole):
    def configure_model(self) -> None:
        if not hasattr(self.net, "_orig_mod"):
            self.net = torch.compile(self.net, backend="eager")  # type: ignore[assignment]


class InPlace(Whole):
    def __init__(self) -> None:
        super().__init__()
        self.net.compile(backend="eager")


class Nested(Whole):
    """A compiled part inside of a compiled part."""

    def __init__(self) -> None:
        super().__init__()
        self.net.inner = torch.compile(self.net.inner, backend="eager")  # type: ignore[assignment]
        self.net = torch.compile(self.net, backend="eager")  # type: ignore[assignment]


FORMS = [InInit, InSetup, InConfigureModel, InPlace, Nested]


@pytest.mark.parametrize("form", FORMS)
def test_checkpoints_have_the_names_without_compilation(
    form: type[Whole], tmp_path: Path
) -> None:
    written, compiled = tmp_path / "written.ckpt", tmp_path / "compiled.ckpt"
    flags = {"max_epochs": 2, "limit_train_batches": 3}
    whole = quiet(**flags)
    whole.fit(Whole(), loader(10))
    whole.save_checkpoint(written)
    trainer = quiet(**flags)
    trainer.fit(form(), loader(10))
    trainer.save_checkpoint(compiled)
    assert graphs() > 0
    saved = [torch.load(path, weights_only=True) for path in (written, compiled)]
    assert list(saved[1]["state_dict"]) == list(saved[0]["state_dict"])
    assert_equal(saved[1]["state_dict"], saved[0]["state_dict"], "weights")

    for make, path in ((form, written), (Whole, compiled)):
        loaded = make.load_from_checkpoint(path)
        assert_equal(loaded.state_dict(), whole.lightning_module.state_dict(), "loaded")
        resumed = quiet(max_epochs=3, limit_train_batches=3)
        resumed.fit(make(), loader(10), ckpt_path=path)
        assert resumed.global_step == 9


@pytest.mark.parametrize("form", [Whole, InInit, InPlace, Nested])
@pytest.mark.parametrize("inner", ["net.", "net._orig_mod."])
def test_state_with_names_of_wrappers_is_loaded(form: type[Whole], inner: str) -> None:
    state = {
        name.replace("net.", inner): value + 1
        for name, value in Whole().state_dict().items()
    }
    module = form()
    assert "<All keys matched" in str(module.load_state_dict(state))
    assert_equal(list(module.state_dict().values()), list(state.values()), "values")


def test_module_inside_of_another_is_named_like_that_too() -> None:
    outer = nn.ModuleDict({"model": InInit()})
    state = outer.state_dict()
    assert "model.net.inner.0.weight" in state
    assert "<All keys matched" in str(outer.load_state_dict(state))
    assert state._metadata["model.net.inner.1"]["version"] == 2


def test_missing_weight_of_a_compiled_part_is_named() -> None:
    state = InInit().state_dict()
    del state["net.inner.0.weight"]
    with pytest.raises(RuntimeError, match=r"Missing key.*0\.weight"):
        InInit().load_state_dict(state)


def test_compiled_part_inside_of_a_compiled_step() -> None:
    ours = quiet(compile=TRACED)
    ours.fit(InInit(), loader(10))
    assert not counters["graph_break"]
    assert graphs() == 1
    theirs = quiet()
    theirs.fit(Whole(), loader(10))
    assert_same_fit(ours, theirs)
