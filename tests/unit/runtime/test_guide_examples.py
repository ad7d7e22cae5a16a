"""Every code example of the LightningModule guide, run as it stands.

The code is read from `guide.md`; only the names that an example leaves open are
filled in here. Each docstring names, in English, the section that the test checks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from guide import class_of, example_class, examples, run_code, run_example
from small_runs import Small, fitted, loader, numbers, quiet
from torch import nn
from torch.utils.data import (
    DataLoader,
    DistributedSampler,
    RandomSampler,
    TensorDataset,
)

import lightgen_runtime as L


def targets(rows: int) -> Any:
    return numbers(rows)[:, :1] * 2


def pairs(rows: int = 8, batch_size: int = 2, **kwargs: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(numbers(rows), targets(rows)), batch_size, **kwargs)


class Regression(L.LightningModule):
    """What the examples of methods have around them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.Linear(4, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        return F.mse_loss(self.model(x), y)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", 1.0)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trained(model: Any, **flags: Any) -> L.Trainer:
    trainer = quiet(**flags)
    trainer.fit(model, pairs(), pairs(4))
    return trainer


# ---- Core structure ----


def test_core_structure_example() -> None:
    """Core structure: the example, with a network filled in."""
    names = run_example("core_structure", YourNeuralNetwork=lambda: nn.Linear(4, 2))
    model = names["MyModel"](learning_rate=0.05)
    assert names["MyModel"]().hparams == {"learning_rate": 0.001}
    labels = (numbers()[:, 0] > 0).long()
    data = DataLoader(TensorDataset(numbers(), labels), 2)
    trainer = quiet(max_epochs=40)
    trainer.fit(model, data, data)
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.05
    assert trainer.callback_metrics["val_acc"] == 1.0
    (results,) = trainer.test(model, data, verbose=False)
    assert results["test_acc"] == 1.0
    expected = F.cross_entropy(model.model(numbers()), labels)
    assert results["test_loss"] == pytest.approx(expected.item(), rel=1e-5)


# ---- Basic methods: training pipeline ----


def test_training_step_example() -> None:
    """training_step, example: what it logs, in the bar and with the optimizer's rate."""
    model = example_class("training_step", Regression)()
    trainer = trained(model)
    keys = {"train_loss", "train_loss_step", "train_loss_epoch", "learning_rate"}
    assert keys <= set(trainer.callback_metrics)
    assert set(trainer.progress_bar_metrics) == {"train_loss_step", "train_loss_epoch"}
    assert trainer.callback_metrics["learning_rate"] == pytest.approx(0.1)


def test_validation_step_example() -> None:
    """validation_step, example: the mean over all samples, shown in the bar."""
    model = example_class("validation_step", Regression)()
    trainer = quiet()
    (results,) = trainer.validate(model, pairs(7, 3), verbose=False)
    expected = F.mse_loss(model.model(numbers(7)), targets(7)).item()
    assert results["val_loss"] == pytest.approx(expected, rel=1e-6)
    assert trainer.progress_bar_metrics == results


def test_predict_step_example() -> None:
    """predict_step, example: raw predictions, batch by batch."""
    model = example_class("predict_step", Regression)()
    predictions = quiet().predict(model, pairs(5))
    assert predictions is not None
    assert [len(each) for each in predictions] == [2, 2, 1]
    # Batches of another size are computed in another order.
    assert torch.allclose(torch.cat(predictions), model.model(numbers(5)))


# ---- Basic methods: configuration ----


@pytest.mark.parametrize(
    ("name", "rate"),
    [("configure_1", 0.001), ("configure_2", 0.0001), ("configure_3", 0.0001)],
)
def test_configure_optimizers_example(name: str, rate: float) -> None:
    """configure_optimizers, forms 1 to 3: the rate after 12 epochs tells the schedule."""
    assert name in ("configure_1", "configure_2", "configure_3")
    trainer = trained(example_class(name, Regression)(), max_epochs=12)
    (optimizer,) = trainer.optimizers
    assert isinstance(optimizer, torch.optim.Adam)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(rate)


@pytest.mark.parametrize(("improves", "rate"), [(True, 0.001), (False, 0.0001)])
def test_configured_scheduler_watches_its_monitor(improves: bool, rate: float) -> None:
    """configure_optimizers, form 3, monitor: the rate falls if that metric stands still."""

    class Watched(example_class("configure_3", Regression)):  # type: ignore[misc]
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("another", float(1 if improves else -self.current_epoch))
            self.log("val_loss", float(-self.current_epoch if improves else 1))
            self.log("zz_other", float(1 if improves else -self.current_epoch))

    trainer = trained(Watched(), max_epochs=12)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(rate)


@pytest.mark.parametrize(
    ("interval", "frequency", "steps"),
    [("epoch", 1, 2), ("epoch", 2, 1), ("step", 1, 8), ("step", 2, 4)],
)
def test_configured_interval_and_frequency_are_kept(
    interval: str, frequency: int, steps: int
) -> None:
    """configure_optimizers, form 3, interval and frequency: when and how often."""
    code = examples()["configure_3"]
    for old, new in (
        ("ReduceLROnPlateau(optimizer)", "StepLR(optimizer, 1, gamma=0.5)"),
        ('"epoch"', f'"{interval}"'),
        ('"frequency": 1', f'"frequency": {frequency}'),
    ):
        assert old in code
        code = code.replace(old, new)
    trainer = trained(class_of(code, Regression)(), max_epochs=2)
    rate = trainer.optimizers[0].param_groups[0]["lr"]
    assert rate == pytest.approx(0.001 * 0.5**steps)


class Adversaries(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator = nn.Linear(4, 4)
        self.discriminator = nn.Linear(4, 1)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        self.seen = self.optimizers()


def test_several_optimizers_example() -> None:
    """configure_optimizers, form 4: two optimizers, each with its own parameters."""
    model = example_class("configure_4", Adversaries)()
    trainer = quiet()
    trainer.fit(model, loader())
    assert [len(o.param_groups[0]["params"]) for o in trainer.optimizers] == [2, 2]
    assert trainer.optimizers[0].param_groups[0]["params"][0] is model.generator.weight
    assert len(model.seen) == 2


def test_forward_example() -> None:
    """forward, example: self(x) trains what model(x) infers with."""
    model = example_class("forward", Regression)()
    before = model(numbers(3)).detach()
    trained(model)
    assert not torch.equal(model(numbers(3)), before)
    assert torch.equal(model(numbers(3)), model.model(numbers(3)))


# ---- Logging and metrics ----


class Logging(Small):
    """Runs an example's statements in its training step."""

    example = ""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self(batch).pow(2).mean()
        run_example(self.example, self=self, batch=batch, loss=loss, acc=0.5, lr=0.1)
        return loss


def test_log_example() -> None:
    """log, examples: all four calls in one step."""

    class Example(Logging):
        example = "log"

    trainer = fitted(Example())
    own = {"train_loss", "accuracy", "loss", "loss_step", "loss_epoch", "batch_size"}
    assert set(trainer.callback_metrics) == {*own, "val_loss"}
    assert set(trainer.progress_bar_metrics) == {"accuracy"}
    assert trainer.callback_metrics["batch_size"] == 2


def test_log_dict_example() -> None:
    """log_dict, example: three metrics, each per step and per epoch."""

    class Example(Logging):
        example = "log_dict"

    metrics = fitted(Example()).callback_metrics
    for name in ("train_loss", "train_acc", "learning_rate"):
        assert {f"{name}_step", f"{name}_epoch"} <= set(metrics)
    assert metrics["learning_rate_epoch"] == pytest.approx(0.1)


def test_save_hyperparameters_example() -> None:
    """save_hyperparameters, example: all arguments, as attributes of self.hparams."""
    made = example_class("save_hyperparameters", L.LightningModule)
    model = made(0.1, hidden_dim=3, dropout=0.5)
    assert model.hparams.learning_rate == 0.1
    assert model.hparams.hidden_dim == 3
    assert model.hparams.dropout == 0.5
    assert set(model.hparams) == {"learning_rate", "hidden_dim", "dropout"}


# ---- Manual optimization ----


def generator_loss(self: Any, batch: Any) -> Any:
    return -self.discriminator(self.generator(batch)).mean()


def discriminator_loss(self: Any, batch: Any) -> Any:
    fake = self.discriminator(self.generator(batch).detach())
    return fake.mean() - self.discriminator(batch).mean()


def test_manual_optimization_example() -> None:
    """Manual optimization, example: the weights are those of a loop by hand."""
    names = run_example(
        "manual",
        Generator=lambda: nn.Linear(4, 4),
        Discriminator=lambda: nn.Linear(4, 1),
    )
    losses = {
        "compute_generator_loss": generator_loss,
        "compute_discriminator_loss": discriminator_loss,
    }
    made: Any = type("Filled", (names["GANModel"],), losses)
    torch.manual_seed(0)
    model, by_hand = made(), made()
    by_hand.load_state_dict(model.state_dict())
    trainer = quiet(max_epochs=2)
    trainer.fit(model, loader())

    opt_g, opt_d = by_hand.configure_optimizers()
    for batch in [*loader(), *loader()]:
        for optimizer, loss in ((opt_g, generator_loss), (opt_d, discriminator_loss)):
            optimizer.zero_grad()
            loss(by_hand, batch).backward()
            optimizer.step()
    for ours, theirs in zip(model.parameters(), by_hand.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert trainer.global_step == 16
    assert {"g_loss", "d_loss"} == set(trainer.callback_metrics)


# ---- Lifecycle hooks ----


def test_setup_example() -> None:
    """setup, example: each stage loads its own data."""
    made = example_class(
        "setup", Small, load_train_data=lambda: "train", load_test_data=lambda: "test"
    )
    model = made()
    fitted(model)
    assert model.train_dataset == "train"
    assert not hasattr(model, "test_dataset")
    quiet().test(model, loader(), verbose=False)
    assert model.test_dataset == "test"


def test_epoch_end_example() -> None:
    """Epoch boundaries, example: a metric of each epoch's outputs, dropped afterwards."""
    values = []

    def compute_custom_metric(predictions: Any) -> Any:
        values.append(len(predictions))
        return predictions.mean()

    base: Any = example_class(
        "on_train_epoch_end", Small, compute_custom_metric=compute_custom_metric
    )

    class Example(base):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.training_step_outputs: list[Any] = []

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            outputs = self(batch)
            self.training_step_outputs.append(torch.ones(2))
            return outputs.pow(2).mean()

    trainer = fitted(Example(), max_epochs=2)
    assert values == [8, 8]
    assert trainer.callback_metrics["epoch_metric"] == 1.0


def test_after_backward_example() -> None:
    """Gradient hooks, example: the logged norm is that before clipping to 1."""
    norms = []
    base: Any = example_class("on_after_backward", Small)

    class Example(base):  # type: ignore[misc]
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self(batch).mean() * 100

        def on_before_optimizer_step(self, optimizer: Any) -> None:
            norms.append(nn.utils.get_total_norm(p.grad for p in self.parameters()))

    trainer = fitted(Example())
    assert [float(norm) for norm in norms] == pytest.approx([1.0] * 4, rel=1e-4)
    assert trainer.callback_metrics["grad_norm"] > 50


@pytest.mark.parametrize("saves", [True, False])
def test_checkpoint_hooks_example(tmp_path: Path, saves: bool) -> None:
    """Checkpoint hooks, examples: the extra entry comes back, else the default."""
    base = example_class("on_save_checkpoint", Small) if saves else Small
    made = example_class("on_load_checkpoint", base, default_value="default")
    model = made()
    model.custom_data = {"kept": [1, 2]}
    fitted(model).save_checkpoint(tmp_path / "x.ckpt")
    again = made.load_from_checkpoint(tmp_path / "x.ckpt")
    assert again.custom_data == ({"kept": [1, 2]} if saves else "default")


# ---- Best practices ----


class Placing(Small):
    example = ""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        names = run_example(self.example, self=self, x=batch, model=self)
        assert names["x"].device == self.device
        return self(names["x"]).mean()


def test_device_by_name_is_not_portable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Device independence, bad example: it fails where there is no such device."""

    class Example(Placing):
        example = "device_bad"

    def no_cuda(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("no CUDA device")

    monkeypatch.setattr(torch.Tensor, "cuda", no_cuda)
    with pytest.raises(RuntimeError, match="no CUDA device"):
        fitted(Example())


def test_device_of_the_module_is_portable() -> None:
    """Device independence, good example: it runs on whatever there is."""

    class Example(Placing):
        example = "device_good"

    assert fitted(Example()).global_step == 4
    names = run_example("device_good", self=Small().to("meta"), x=numbers())
    assert names["x"].device == torch.device("meta")


def test_sampler_by_hand_needs_processes() -> None:
    """Distributed training, bad example: it fails outside of a group of processes."""
    with pytest.raises((RuntimeError, ValueError), match="process group"):
        run_example(
            "sampler_bad", dataset=numbers(), DistributedSampler=DistributedSampler
        )


def test_shuffling_loader_example() -> None:
    """Distributed training, good example: on one device it stays a shuffled pass."""
    made = run_code(f"made = {examples()['sampler_good']}", dataset=numbers())["made"]
    trainer = quiet()
    trainer.fit(Small(), made)
    assert trainer.global_step == len(numbers())
    assert trainer.train_dataloader is made
    assert isinstance(made.sampler, RandomSampler)
    assert examples()["sampler_good"].strip() == "DataLoader(dataset, shuffle=True)"


def test_aggregation_by_hand_is_another_mean() -> None:
    """Metric aggregation, both examples: by hand, a short batch counts as a long one."""
    append, _, hook = examples()["aggregation_bad"].partition("\n\n")

    class Example(class_of(f"{hook}    self.avg_loss = avg_loss\n", Small)):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.validation_outputs: list[Any] = []

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            loss = batch.mean()
            run_code(append, self=self, loss=loss)
            run_example("aggregation_good", self=self, loss=loss)

    model = Example()
    (results,) = quiet().validate(model, loader(5, 4), verbose=False)
    exact = float(numbers(5).mean())
    assert results["val_loss"] == pytest.approx(exact, rel=1e-6)
    assert float(model.avg_loss) != pytest.approx(exact, rel=1e-2)


class Reloaded(L.LightningModule):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self(batch).pow(2).mean()

    def forward(self, x: Any) -> Any:
        return self.net(x)

    def setup(self, stage: str) -> None:
        assert self.hparams.hidden_dim

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.hparams.learning_rate)


def saved_at(path: Path) -> Any:
    """Fit the model of the section on hyperparameters and save it."""
    init, _, _ = examples()["hyperparameters"].partition("\n\nmodel")
    made = class_of(
        f"{init}\n    self.net = torch.nn.Linear(4, hidden_dim)\n", Reloaded
    )
    trainer = quiet()
    trainer.fit(made(0.25, hidden_dim=3), loader())
    path.parent.mkdir(parents=True, exist_ok=True)
    trainer.save_checkpoint(path)
    return made


def test_hyperparameters_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hyperparameters, example: loaded by the path alone, printed as it was."""
    monkeypatch.chdir(tmp_path)
    made = saved_at(Path("checkpoint.ckpt"))
    _, model, rest = examples()["hyperparameters"].partition("model =")
    run_code(model + rest, MyModel=made)
    assert capsys.readouterr().out == "0.25\n"


def test_loading_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading, example: saved values, an overridden one, and inference."""
    monkeypatch.chdir(tmp_path)
    made = saved_at(Path("path/to/checkpoint.ckpt"))
    names = run_example("loading", MyModel=made, data=numbers())
    assert names["model"].hparams == {"learning_rate": 0.0001, "hidden_dim": 3}
    assert not names["model"].training
    weights = torch.load("path/to/checkpoint.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(names["model"].net.weight, weights["net.weight"])
    assert names["predictions"].shape == (8, 3)


# ---- Common patterns ----


@pytest.mark.filterwarnings("ignore:.*on a CPU. computing in bfloat16:UserWarning")
def test_mixed_precision_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mixed precision: the trainer as the example makes it, on a machine without a GPU."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    trainer = run_example("mixed_precision")["trainer"]
    seen = []

    class Watching(Small):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            output = self(batch)
            seen.append((output.dtype, self.layer.weight.dtype))
            self.trainer.should_stop = True
            return output.float().mean()

    with pytest.warns(UserWarning, match="neither max_epochs nor max_steps"):
        trainer.fit(Watching(), loader())
    assert set(seen) == {(torch.bfloat16, torch.float32)}
    assert trainer.global_step == 1


@pytest.mark.parametrize("name", ["accumulation", "clipping"])
def test_trainer_example(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradient accumulation, gradient clipping: the trainer as the example makes it."""
    assert name in ("accumulation", "clipping")
    monkeypatch.chdir(tmp_path)
    trainer = run_example(name)["trainer"]
    norms, steps = [], []

    class Watching(Small):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            steps.append(self.global_step)
            self.trainer.should_stop = len(steps) == 8
            return self(batch).mean() * 100

        def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
            super().optimizer_step(*args, **kwargs)
            norms.append(nn.utils.get_total_norm(p.grad for p in self.parameters()))

    with pytest.warns(UserWarning, match="neither max_epochs nor max_steps"):
        trainer.fit(Watching(), loader())
    if name == "accumulation":
        assert steps == [0, 0, 0, 0, 1, 1, 1, 1]
        assert trainer.accumulate_grad_batches == 4
    else:
        assert [float(norm) for norm in norms] == pytest.approx([0.5] * 8, rel=1e-3)


@pytest.mark.parametrize("window", [1, 2])
def test_warm_up_example(window: int) -> None:
    """Learning-rate warm-up, example: up and down once over all steps of the fit."""
    rates = []

    class Example(example_class("warm_up", Small)):  # type: ignore[misc]
        def on_before_optimizer_step(self, optimizer: Any) -> None:
            rates.append(optimizer.param_groups[0]["lr"])

    steps = 20 // window
    trainer = fitted(Example(), max_epochs=5, accumulate_grad_batches=window)
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(()))])
    by_hand = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.01, total_steps=steps
    )
    expected = []
    for _ in range(steps):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(expected) < steps:
            by_hand.step()
    assert trainer.estimated_stepping_batches == steps
    assert rates == expected
    assert rates[0] < max(rates) > rates[-1]
