"""When training stops, and what is said about it."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from lightgen_runtime import LightningModule, Trainer
from lightgen_runtime.callbacks import EarlyStopping
from lightgen_runtime.callbacks.early_stopping import EarlyStoppingReason
from lightgen_runtime.utilities.exceptions import MisconfigurationException

NAN = float("nan")


class Scored(LightningModule):
    def __init__(self, scores):
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.scores = list(scores)

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch).square().mean()
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        if not self.trainer.sanity_checking:
            self.log("val_loss", self.scores.pop(0))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(callback, scores, tmp_path, val=True, **flags):
    trainer = Trainer(
        **{"max_epochs": len(scores), **flags},
        accelerator="cpu",
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callback],
    )
    data = DataLoader(torch.ones(4, 2), batch_size=2)
    validation = DataLoader(torch.ones(1, 2)) if val else None
    trainer.fit(Scored(scores), data, validation)
    return trainer


# Epochs done, waits, epoch of the stop, best score, reason: as Lightning 2.6.6 did them.
@pytest.mark.parametrize(
    ("options", "scores", "epochs", "wait", "stopped", "best", "reason"),
    [
        ({}, [1, 2, 3, 4, 5, 6], 4, 3, 3, 1.0, "PATIENCE_EXHAUSTED"),
        ({"patience": 0}, [3, 4, 5], 2, 1, 1, 3.0, "PATIENCE_EXHAUSTED"),
        (
            {"patience": 1, "min_delta": 0.5},
            [3, 2.9, 2.8, 2.7],
            *(2, 1, 1, 3.0, "PATIENCE_EXHAUSTED"),
        ),
        (
            {"mode": "max", "patience": 2},
            [3, 4, 3, 2, 1],
            *(4, 2, 3, 4.0, "PATIENCE_EXHAUSTED"),
        ),
        ({}, [3, NAN, 2, 1], 2, 0, 1, 3.0, "NON_FINITE_METRIC"),
        (
            {"check_finite": False, "patience": 2},
            [3, NAN, NAN, 1],
            *(3, 2, 2, 3.0, "PATIENCE_EXHAUSTED"),
        ),
        ({"stopping_threshold": 1.5}, [3, 2, 1, 0], 3, 0, 2, 2.0, "STOPPING_THRESHOLD"),
        (
            {"divergence_threshold": 3.5},
            [3, 2, 4, 0],
            *(3, 0, 2, 2.0, "DIVERGENCE_THRESHOLD"),
        ),
        ({}, [3, 2, 1], 3, 0, 0, 1.0, "NOT_STOPPED"),
    ],
)
def test_stops_when_and_why(
    options, scores, epochs, wait, stopped, best, reason, tmp_path
):
    callback = EarlyStopping("val_loss", **options)
    trainer = fit(callback, scores, tmp_path)
    assert trainer.current_epoch == epochs
    assert callback.wait_count == wait
    assert callback.stopped_epoch == stopped
    assert float(callback.best_score) == best
    assert callback.stopping_reason is EarlyStoppingReason[reason]
    assert bool(callback.stopping_reason_message) == (reason != "NOT_STOPPED")


def test_minimum_of_epochs_is_kept(tmp_path):
    callback = EarlyStopping("val_loss", patience=1)
    trainer = fit(callback, [3, 4, 5, 6, 7], tmp_path, min_epochs=4)
    assert trainer.current_epoch == 4


def test_stopping_is_told_and_improvement_only_on_request(tmp_path, caplog):
    caplog.set_level("INFO", "lightgen_runtime")
    fit(EarlyStopping("val_loss", patience=1), [3, 2, 4], tmp_path)
    assert any("did not improve in the last 1 checks" in m for m in caplog.messages)
    assert not any("improved" in m for m in caplog.messages)
    fit(EarlyStopping("val_loss", verbose=True), [3, 2], tmp_path)
    assert "`val_loss` improved by 1.000 to 2.000." in caplog.messages


def test_training_metric_is_checked_without_validation(tmp_path):
    callback = EarlyStopping("train_loss", patience=1, min_delta=100.0)
    assert fit(callback, [0] * 5, tmp_path, val=False).current_epoch == 2
    # Also where validation is asked for every other epoch, and there is none.
    callback = EarlyStopping("train_loss", patience=1, min_delta=100.0)
    trainer = fit(callback, [0] * 5, tmp_path, val=False, check_val_every_n_epoch=2)
    assert trainer.current_epoch == 2


def test_validation_in_mid_epoch_is_checked_each_time(tmp_path):
    callback = EarlyStopping("val_loss", patience=1)
    trainer = fit(callback, [1, 2, 3, 4], tmp_path, val_check_interval=0.5)
    assert trainer.current_epoch == 1
    assert callback.wait_count == 1


def test_sanity_check_does_not_count(tmp_path):
    callback = EarlyStopping("val_loss", patience=1)
    fit(callback, [2, 1], tmp_path, num_sanity_val_steps=2)
    assert callback.wait_count == 0


def test_fast_dev_run_never_stops_nor_complains(tmp_path):
    fit(EarlyStopping("nobody"), [1], tmp_path, fast_dev_run=True)


def test_unknown_metric_names_the_nearest(tmp_path):
    with pytest.raises(MisconfigurationException) as caught:
        fit(EarlyStopping("val_los"), [1, 2], tmp_path)
    assert "Logged were: train_loss, val_loss" in str(caught.value)
    assert "Nearest name: `val_loss`" in str(caught.value)
    assert "strict=False" in str(caught.value)


def test_unknown_metric_only_warns_when_not_strict(tmp_path):
    with pytest.warns(UserWarning, match="Nearest name: `val_loss`"):
        trainer = fit(EarlyStopping("val_los", strict=False), [1, 2], tmp_path)
    assert trainer.current_epoch == 2


@pytest.mark.parametrize("options", [{"mode": "lowest"}, {"patience": -1}])
def test_impossible_arguments_are_refused(options):
    name, value = next(iter(options.items()))
    with pytest.raises(MisconfigurationException, match=f"`{name}={value!r}`"):
        EarlyStopping("val_loss", **options)


def test_state_goes_on_where_it_was():
    first = EarlyStopping("val_loss", patience=5)
    first.wait_count, first.best_score = 2, torch.tensor(0.25)
    first.stopping_reason = EarlyStoppingReason.STOPPING_THRESHOLD
    second = EarlyStopping("val_loss")
    second.load_state_dict(first.state_dict())
    assert second.state_dict() == first.state_dict()
    assert second.stopping_reason is EarlyStoppingReason.STOPPING_THRESHOLD


def test_state_has_the_keys_of_lightning():
    lightning = pytest.importorskip("lightning.pytorch.callbacks")
    ours, theirs = EarlyStopping("x"), lightning.EarlyStopping("x")
    assert ours.state_key == theirs.state_key
    assert ours.state_dict() == theirs.state_dict()
