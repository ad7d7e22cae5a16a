"""Every statement and example of the LightningModule guide, section by section.

Each docstring names, in English, the section that the test checks.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_runs import Small, fitted, loader, numbers, quiet, variant
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lightgen_runtime as L
from lightgen_runtime.callbacks import ProgressBar
from lightgen_runtime.loggers import Logger
from lightgen_runtime.utilities.exceptions import MisconfigurationException


def labelled(rows: int = 8, batch_size: int = 2) -> DataLoader[Any]:
    inputs = numbers(rows)
    return DataLoader(TensorDataset(inputs, (inputs[:, 0] > 0).long()), batch_size)


class MyModel(L.LightningModule):
    """The model of the section "Core structure", with a network filled in."""

    def __init__(self, learning_rate=0.001):
        super().__init__()
        self.save_hyperparameters()
        self.model = nn.Linear(4, 2)

    def forward(self, x):
        return self.model(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        logits = self.model(x)
        loss = F.cross_entropy(logits, y)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        logits = self.model(x)
        loss = F.cross_entropy(logits, y)
        acc = (logits.argmax(dim=1) == y).float().mean()
        self.log("val_loss", loss)
        self.log("val_acc", acc)

    def test_step(self, batch, batch_idx):
        x, y = batch
        logits = self.model(x)
        loss = F.cross_entropy(logits, y)
        acc = (logits.argmax(dim=1) == y).float().mean()
        self.log("test_loss", loss)
        self.log("test_acc", acc)

    def predict_step(self, batch, batch_idx):
        x, _ = batch
        return self.model(x)

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=self.hparams.learning_rate)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="min")
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "monitor": "val_loss"},
        }


def test_core_structure_trains_validates_and_tests() -> None:
    """Overview, Core structure: a plain nn.Module in six sections runs everywhere."""
    model = MyModel(learning_rate=0.1)
    trainer = quiet(max_epochs=5)
    trainer.fit(model, labelled(), labelled(4))
    assert isinstance(model, nn.Module)
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.1
    assert {"train_loss", "val_loss", "val_acc"} <= set(trainer.callback_metrics)
    (results,) = trainer.test(model, labelled(6), verbose=False)
    assert set(results) == {"test_loss", "test_acc"}


# ---- Basic methods: training pipeline ----


@pytest.mark.parametrize("form", ["tensor", "mapping"])
def test_training_step_returns_loss_and_is_stepped(form: str) -> None:
    """training_step: returns the loss or a mapping with "loss"; the rest is automatic."""

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        loss = self(batch).pow(2).mean()
        return loss if form == "tensor" else {"loss": loss, "extra": 1}

    model = variant(training_step=training_step)
    before = model.layer.weight.clone()
    assert fitted(model).global_step == 4
    assert not torch.equal(model.layer.weight, before)


def test_training_step_is_given_batches_and_their_index() -> None:
    """training_step, parameters: the batch of the loader, and its index."""
    seen = []

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        seen.append((batch_idx, batch))
        return self(batch).mean()

    fitted(variant(training_step=training_step))
    assert [index for index, _ in seen] == [0, 1, 2, 3]
    assert torch.equal(torch.cat([batch for _, batch in seen]), numbers())


def test_training_step_example_logs_the_learning_rate() -> None:
    """training_step, example: per step, per epoch, in the bar, and optimizer state."""

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        loss = self(batch).pow(2).mean()
        self.log("train_loss", loss, on_step=True, on_epoch=True, prog_bar=True)
        self.log("learning_rate", self.optimizers().param_groups[0]["lr"])
        return loss

    trainer = fitted(variant(training_step=training_step))
    assert {"train_loss", "train_loss_step", "train_loss_epoch"} <= set(
        trainer.callback_metrics
    )
    assert trainer.callback_metrics["learning_rate"] == pytest.approx(0.1)
    assert set(trainer.progress_bar_metrics) == {"train_loss_step", "train_loss_epoch"}


def test_validation_step_runs_without_gradients_in_evaluation_mode() -> None:
    """validation_step: gradients off, model in evaluation mode, automatically."""
    seen = []

    def validation_step(self: Any, batch: Any, batch_idx: int) -> Any:
        seen.append((torch.is_grad_enabled(), self.training, self.layer.training))
        return self(batch).pow(2).mean()

    model = variant(validation_step=validation_step)
    fitted(model)
    assert set(seen) == {(False, False, False)}
    assert model.training
    assert model.layer.training


def test_validation_loss_is_the_mean_over_all_samples() -> None:
    """validation_step, example: aggregated over batches, the ragged last one included."""
    model = Small()
    (results,) = quiet().validate(model, loader(5), verbose=False)
    assert results["val_loss"] == pytest.approx(
        model(numbers(5)).pow(2).mean().item(), rel=1e-6
    )


@pytest.mark.parametrize("returned", [None, torch.ones(()), {"metric": 1.0}])
def test_validation_and_test_step_may_return_anything(returned: Any) -> None:
    """validation_step, test_step, returns: optional, a loss or a mapping."""
    outputs = []

    def step(self: Any, batch: Any, batch_idx: int) -> Any:
        return returned

    def batch_end(self: Any, output: Any, batch: Any, batch_idx: int) -> None:
        outputs.append(output)

    model = variant(
        validation_step=step,
        test_step=step,
        on_validation_batch_end=batch_end,
        on_test_batch_end=batch_end,
    )
    quiet().validate(model, loader(2), verbose=False)
    quiet().test(model, loader(2), verbose=False)
    assert outputs == [returned, returned]


def test_test_step_runs_only_when_asked_for() -> None:
    """test_step: only on trainer.test()."""
    calls = []

    def test_step(self: Any, batch: Any, batch_idx: int) -> None:
        calls.append(batch_idx)

    model = variant(test_step=test_step, test_dataloader=lambda self: loader(4))
    trainer = fitted(model)
    trainer.validate(model, loader(), verbose=False)
    trainer.predict(model, loader())
    assert not calls
    trainer.test(model, verbose=False)
    assert calls == [0, 1]


def test_predict_step_returns_are_collected() -> None:
    """predict_step: called by trainer.predict(), returns whatever is needed."""
    model = MyModel()
    predictions = quiet().predict(model, labelled(5))
    assert predictions is not None
    assert torch.equal(torch.cat(predictions), model(numbers(5)))


def test_predict_step_knows_its_loader() -> None:
    """predict_step, parameters: dataloader_idx, if there are several loaders."""

    def predict_step(
        self: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> Any:
        return dataloader_idx, batch_idx

    model = variant(predict_step=predict_step)
    assert quiet().predict(model, loader(4)) == [(0, 0), (0, 1)]
    assert quiet().predict(model, [loader(2), loader(4)]) == [
        [(0, 0)],
        [(1, 0), (1, 1)],
    ]


# ---- Basic methods: configuration ----


def one(self: Any) -> Any:
    return torch.optim.Adam(self.parameters(), lr=0.001)


def two_lists(self: Any) -> Any:
    optimizer = torch.optim.Adam(self.parameters(), lr=0.001)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=10)
    return [optimizer], [scheduler]


def monitored(self: Any) -> Any:
    optimizer = torch.optim.Adam(self.parameters(), lr=0.001)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, patience=0, threshold=10.0
    )
    return {
        "optimizer": optimizer,
        "lr_scheduler": {
            "scheduler": scheduler,
            "monitor": "val_loss",
            "interval": "epoch",
            "frequency": 1,
            "strict": True,
        },
    }


@pytest.mark.parametrize(
    ("form", "rate"), [(one, 0.001), (two_lists, 0.0001), (monitored, 1e-8)]
)
def test_configure_optimizers_with_one_optimizer(form: Any, rate: float) -> None:
    """configure_optimizers, forms 1 to 3: the rate after 11 epochs tells the schedule."""
    trainer = fitted(variant(configure_optimizers=form), max_epochs=11)
    (group,) = trainer.optimizers[0].param_groups
    assert group["lr"] == pytest.approx(rate, rel=1e-3)


def test_strict_monitor_that_is_missing_ends_the_fit() -> None:
    """configure_optimizers, form 3: "strict": True crashes if the metric is not found."""
    model = variant(
        configure_optimizers=monitored, validation_step=lambda self, batch: None
    )
    with pytest.raises(
        MisconfigurationException, match="'val_loss', which nobody has logged"
    ):
        fitted(model)


# ---- Basic methods: forward ----


def test_forward_serves_training_and_inference() -> None:
    """forward: self(x) in training_step, model(x) for inference."""
    model = Small()
    fitted(model)
    assert model(numbers(3)).shape == (3, 1)


# ---- Logging and metrics ----


class Sent(Logger):
    """Keeps what loggers are sent."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.hparams: dict[str, Any] = {}

    @property
    def name(self) -> str:
        return "sent"

    @property
    def version(self) -> int:
        return 0

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self.hparams.update(params)

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        assert step is not None
        self.rows.append((step, dict(metrics)))

    def keys(self) -> set[str]:
        return {key for _, row in self.rows for key in row} - {"epoch"}


def test_log_defaults_of_each_hook() -> None:
    """log, on_step and on_epoch: per step in training_step, per epoch elsewhere."""
    sent = Sent()

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        self.log("train", float(batch_idx))
        return self(batch).mean()

    def validation_step(self: Any, batch: Any, batch_idx: int) -> None:
        self.log("val", float(batch_idx))

    def on_train_epoch_end(self: Any) -> None:
        self.log("epoch_end", 7.0)

    model = variant(
        training_step=training_step,
        validation_step=validation_step,
        on_train_epoch_end=on_train_epoch_end,
    )
    fitted(model, logger=sent, log_every_n_steps=1)
    values = [(key, row[key]) for _, row in sent.rows for key in row if key != "epoch"]
    assert values == [
        ("train", 0.0),
        ("train", 1.0),
        ("train", 2.0),
        ("train", 3.0),
        ("val", 0.5),
        ("epoch_end", 7.0),
    ]


def test_log_reaches_loggers_unless_told_otherwise() -> None:
    """log, logger and prog_bar: sent by default; not in the bar by default."""
    sent = Sent()

    def validation_step(self: Any, batch: Any, batch_idx: int) -> None:
        self.log("both", 1.0, prog_bar=True)
        self.log("sent_only", 1.0)
        self.log("bar_only", 1.0, prog_bar=True, logger=False)

    trainer = fitted(variant(validation_step=validation_step), logger=sent)
    assert sent.keys() == {"both", "sent_only"}
    assert set(trainer.progress_bar_metrics) == {"both", "bar_only"}


@pytest.mark.parametrize(
    ("reduce_fx", "expected"),
    [("mean", 1.5), ("sum", 6.0), ("max", 3.0), ("min", 0.0)],
)
def test_log_reduces_as_told(reduce_fx: str, expected: float) -> None:
    """log, reduce_fx: "mean", "sum", "max" or "min"."""

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        value = float(batch_idx)
        self.log("value", value, on_step=False, on_epoch=True, reduce_fx=reduce_fx)
        return self(batch).mean()

    trainer = fitted(variant(training_step=training_step))
    assert trainer.callback_metrics["value"] == expected


def test_log_examples() -> None:
    """log, examples: simple, bar, both reports, sum over processes."""

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        loss = self(batch).pow(2).mean()
        self.log("train_loss", loss)
        self.log("accuracy", 0.5, prog_bar=True)
        self.log("loss", loss, on_step=True, on_epoch=True)
        self.log(
            "batch_size",
            float(batch.size(0)),
            reduce_fx="sum",
            sync_dist=True,
            on_step=False,
            on_epoch=True,
        )
        return loss

    metrics = fitted(variant(training_step=training_step)).callback_metrics
    assert metrics["batch_size"] == 8
    assert {"train_loss", "accuracy", "loss_step", "loss_epoch"} <= set(metrics)


def test_log_dict_logs_each_entry() -> None:
    """log_dict: several metrics with the same arguments."""

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        loss = self(batch).pow(2).mean()
        metrics = {"train_loss": loss, "train_acc": 0.5, "learning_rate": 0.1}
        self.log_dict(metrics, on_step=True, on_epoch=True)
        return loss

    metrics = fitted(variant(training_step=training_step)).callback_metrics
    for name in ("train_loss", "train_acc", "learning_rate"):
        assert {f"{name}_step", f"{name}_epoch"} <= set(metrics)


class Net(L.LightningModule):
    """The example of save_hyperparameters."""

    def __init__(self, learning_rate, hidden_dim, dropout=0.0):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(4, hidden_dim), nn.Dropout(dropout))

    def training_step(self, batch, batch_idx):
        return self.net(batch).pow(2).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.learning_rate)


def test_save_hyperparameters_keeps_all_arguments() -> None:
    """save_hyperparameters: all arguments of __init__, read from self.hparams."""
    model = Net(0.1, hidden_dim=3)
    assert model.hparams.learning_rate == 0.1
    assert dict(model.hparams) == {
        "learning_rate": 0.1,
        "hidden_dim": 3,
        "dropout": 0.0,
    }


def test_saved_hyperparameters_reach_the_loggers() -> None:
    """save_hyperparameters: for reproducibility, also told to the loggers."""
    sent = Sent()
    quiet(logger=sent).fit(Net(0.1, 3), loader())
    assert sent.hparams == {"learning_rate": 0.1, "hidden_dim": 3, "dropout": 0.0}


def test_progress_bar_is_on_by_default() -> None:
    """log, prog_bar: there is a bar to show it in."""
    callbacks = L.Trainer(max_epochs=1, logger=False).callbacks
    assert any(isinstance(callback, ProgressBar) for callback in callbacks)
