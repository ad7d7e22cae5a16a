"""A loss that is no number ends the run, by name of the step, before a checkpoint."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from lightgen_runtime import LightningModule, Trainer
from lightgen_runtime.callbacks import (
    Callback,
    FiniteLoss,
    ModelCheckpoint,
    OnExceptionCheckpoint,
)
from lightgen_runtime.utilities.exceptions import (
    MisconfigurationException,
    NonFiniteLossError,
)

BATCHES = 8


class Exploding(LightningModule):
    """Return `value` as the loss of one batch, counted over all epochs."""

    def __init__(self, bad_batch, value=float("nan"), manual=False):
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.bad_batch, self.value = bad_batch, value
        self.automatic_optimization = not manual
        self.seen = 0

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch).square().mean()
        if self.seen == self.bad_batch:
            loss = loss * self.value
        self.seen += 1
        if not self.automatic_optimization:
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        return {"loss": loss, "extra": 1}

    def validation_step(self, batch, batch_idx):
        self.validated = True

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def fit(module, tmp_path, *callbacks, **flags):
    trainer = Trainer(
        **{"max_epochs": 2, "num_sanity_val_steps": 0, **flags},
        accelerator="cpu",
        default_root_dir=tmp_path,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )
    data = DataLoader(torch.ones(BATCHES, 2))
    trainer.fit(module, data, DataLoader(torch.ones(1, 2)))
    return trainer


@pytest.mark.parametrize("every", [1, 3, 100])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_error_names_the_first_bad_batch_whenever_it_is_checked(every, value, tmp_path):
    module = Exploding(BATCHES + 4, value)
    with pytest.raises(NonFiniteLossError) as caught:
        fit(module, tmp_path, FiniteLoss(every))
    assert (
        f"became {value} at batch_idx 4 of epoch 1, global_step {BATCHES + 5}."
        in str(caught.value)
    )


@pytest.mark.parametrize(("bad_batch", "step"), [(1, 0), (2, 1), (6, 2), (7, 3)])
def test_error_counts_accumulated_steps(bad_batch, step, tmp_path):
    with pytest.raises(NonFiniteLossError, match=rf"global_step {step}\."):
        fit(Exploding(bad_batch), tmp_path, FiniteLoss(50), accumulate_grad_batches=3)


def test_error_comes_before_validation_and_before_the_checkpoint(tmp_path):
    module = Exploding(BATCHES + 1)
    checkpoint = ModelCheckpoint(tmp_path / "c", save_last=True)
    with pytest.raises(NonFiniteLossError) as caught:
        fit(module, tmp_path, checkpoint, FiniteLoss())
    kept = tmp_path / "c" / f"epoch=0-step={BATCHES}.ckpt"
    files = sorted(path.name for path in kept.parent.glob("*.ckpt"))
    assert files == [kept.name, "last.ckpt"]
    assert f"last good checkpoint is `{tmp_path / 'c' / 'last.ckpt'}`" in str(
        caught.value
    )
    weights = torch.load(tmp_path / "c" / "last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())


def test_checkpoint_in_mid_epoch_is_not_written_from_a_broken_model(tmp_path):
    checkpoint = ModelCheckpoint(tmp_path / "c", every_n_train_steps=3, save_top_k=-1)
    with pytest.raises(NonFiniteLossError, match="batch_idx 4"):
        fit(Exploding(4), tmp_path, FiniteLoss(100), checkpoint)
    assert [p.name for p in (tmp_path / "c").glob("*.ckpt")] == ["epoch=0-step=3.ckpt"]


def test_checkpoint_of_weights_alone_is_not_written_from_a_broken_model(tmp_path):
    checkpoint = ModelCheckpoint(
        tmp_path / "c", every_n_train_steps=1, save_weights_only=True, save_top_k=-1
    )
    with pytest.raises(NonFiniteLossError, match=r"batch_idx 2 .*epoch=0-step=2\.ckpt"):
        fit(Exploding(2), tmp_path, FiniteLoss(100), checkpoint)
    assert sorted(path.name for path in (tmp_path / "c").glob("*.ckpt")) == [
        "epoch=0-step=1.ckpt",
        "epoch=0-step=2.ckpt",
    ]


class Interrupting(Callback):
    """Press Ctrl-C after a batch."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == 3:
            raise KeyboardInterrupt


@pytest.mark.parametrize("weights_only", [True, False])
@pytest.mark.parametrize("bad_batch", [2, -1])
def test_exception_saves_only_a_model_whose_loss_was_finite(
    weights_only, bad_batch, tmp_path
):
    checkpoint = ModelCheckpoint(
        tmp_path / "c", save_on_exception=True, save_weights_only=weights_only
    )
    with pytest.raises(KeyboardInterrupt):
        fit(Exploding(bad_batch), tmp_path, FiniteLoss(), checkpoint, Interrupting())
    assert len(list((tmp_path / "c").glob("*.ckpt"))) == (bad_batch == -1)


def test_loss_known_to_be_broken_keeps_other_callbacks_from_saving(tmp_path):
    checkpoint = OnExceptionCheckpoint(tmp_path / "c")
    with pytest.raises(NonFiniteLossError):
        fit(Exploding(2), tmp_path, FiniteLoss(1), checkpoint)
    assert not (tmp_path / "c").exists()


def test_broken_loss_is_forgotten_when_the_run_is_over(tmp_path):
    module = Exploding(2)
    callback = FiniteLoss(1)
    with pytest.raises(NonFiniteLossError):
        fit(module, tmp_path, callback)
    fit(Exploding(-1), tmp_path, callback)


def test_error_says_when_there_is_no_checkpoint_and_what_to_try(tmp_path):
    with pytest.raises(NonFiniteLossError) as caught:
        fit(Exploding(2), tmp_path, FiniteLoss(1))
    for words in (
        "No checkpoint was written before",
        "learning rate",
        "gradient_clip_val",
        "detect_anomaly",
    ):
        assert words in str(caught.value)


def test_manual_optimization_is_watched_too(tmp_path):
    with pytest.raises(NonFiniteLossError, match="batch_idx 3 of epoch 0"):
        fit(Exploding(3, manual=True), tmp_path, FiniteLoss())


def test_finite_run_ends_normally_with_bounded_memory(tmp_path):
    callback = FiniteLoss(4)
    longest = 0

    class Watching(FiniteLoss):
        def on_train_batch_end(self, *args):
            nonlocal longest
            super().on_train_batch_end(*args)
            longest = max(longest, len(self._losses))

    callback = Watching(4)
    fit(Exploding(-1), tmp_path, callback)
    assert longest == 3
    assert callback._losses == []


def test_cadence_defaults_to_that_of_logging(tmp_path):
    module = Exploding(0)
    with pytest.raises(NonFiniteLossError, match="batch_idx 0 "):
        fit(module, tmp_path, FiniteLoss(), log_every_n_steps=5)
    assert module.seen == 5


def test_cadence_must_be_positive():
    with pytest.raises(MisconfigurationException, match="every_n_steps=0"):
        FiniteLoss(0)


def test_no_host_sync_between_checks(tmp_path, monkeypatch):
    reads = []
    for name in ("item", "tolist", "__bool__", "__float__"):
        original = getattr(torch.Tensor, name)

        def counted(self, original=original):
            reads.append(1)
            return original(self)

        monkeypatch.setattr(torch.Tensor, name, counted)
    callback = FiniteLoss(5)
    outputs = {"loss": torch.tensor(1.0)}
    trainer = SimpleNamespace(progress=SimpleNamespace(global_step=1))
    for batch_idx in range(4):
        callback.on_train_batch_end(trainer, None, outputs, None, batch_idx)
    assert reads == []
    callback.on_train_batch_end(trainer, None, outputs, None, 4)
    assert len(reads) == 1
