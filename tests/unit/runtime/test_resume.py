"""A fit that is resumed ends as if it had never been interrupted, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torchmetrics
from resuming import Interrupt, Manual, Model, Noisy, assert_equal
from torch.utils.data import DataLoader

from lightgen_runtime import Callback, LightningModule, Trainer, seed_everything
from lightgen_runtime.callbacks import EarlyStopping, ModelCheckpoint
from lightgen_runtime.loggers import CSVLogger
from lightgen_runtime.utilities.exceptions import CheckpointFormatError


def quick_trainer(**flags: Any) -> Trainer:
    return Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **flags,
    )


def fit(
    module: LightningModule,
    folder: Path,
    workers: int = 0,
    resume: Path | None = None,
    extra: list[Callback] | None = None,
    **flags: Any,
) -> Trainer:
    loader = DataLoader(Noisy(), batch_size=2, shuffle=True, num_workers=workers)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=3,
        log_every_n_steps=2,
        logger=CSVLogger(folder, name="", version="log"),
        callbacks=[EarlyStopping("val_loss", patience=50), *(extra or [])],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=bool(extra),
        **flags,
    )
    trainer.fit(module, loader, DataLoader(Noisy(4), batch_size=2), ckpt_path=resume)
    return trainer


def final_state(trainer: Trainer, folder: Path) -> dict[str, Any]:
    return {
        "weights": trainer.lightning_module.state_dict(),
        "optimizers": [o.state_dict() for o in trainer.optimizers],
        "schedulers": [c.scheduler.state_dict() for c in trainer.lr_scheduler_configs],
        "callbacks": {c.state_key: c.state_dict() for c in trainer.callbacks},
        "progress": trainer.progress.state_dict(),
        "metrics": trainer.callback_metrics,
        "rows": (folder / "log" / "metrics.csv").read_text().splitlines(),
    }


class WithObjects(Model):
    """Logs objects of torchmetrics: one by itself, one by its value at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.train_mean = torchmetrics.MeanMetric()
        self.val_mean = torchmetrics.MeanMetric()
        self.val_values = torchmetrics.CatMetric()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        self.train_mean(loss.detach())
        self.log("train_mean", self.train_mean, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        self.val_mean(batch.mean())
        self.log("val_mean", self.val_mean)
        self.val_values.update(batch.max())

    def on_validation_epoch_end(self) -> None:
        self.log("val_values", self.val_values.compute().sum())
        self.val_values.reset()


KINDS: dict[str, tuple[type[Model], dict[str, Any]]] = {
    "automatic": (Model, {}),
    "validation inside the epoch": (Model, {"val_check_interval": 3}),
    "manual": (Manual, {}),
    "workers": (Model, {"workers": 1}),
    "objects": (WithObjects, {"val_check_interval": 3}),
    "accumulating": (Model, {"accumulate_grad_batches": 3, "val_check_interval": 2}),
}
MOMENTS = [
    ("on_train_batch_start", 1),
    ("on_train_batch_start", 9),
    ("on_train_batch_end", 1),
    ("on_train_batch_end", 4),
    ("on_train_batch_end", 10),
    ("on_train_batch_end", 21),
    ("on_validation_batch_start", 4),
    ("on_validation_batch_end", 1),
    ("on_validation_batch_end", 2),
    ("on_validation_epoch_end", 1),
    ("on_validation_end", 1),
    ("on_validation_end", 2),
    ("on_validation_end", 3),
    ("on_train_epoch_end", 1),
    ("on_train_epoch_end", 3),
]


@pytest.mark.parametrize("kind", KINDS)
def test_resumed_fit_equals_uninterrupted_fit(kind: str, tmp_path: Path) -> None:
    module_class, flags = KINDS[kind]
    seed_everything(7, verbose=False)
    whole = final_state(
        fit(module_class(), tmp_path / "whole", **flags), tmp_path / "whole"
    )
    # There, the end hook of the module itself is still to come, and is not called again.
    ends_itself = ("on_validation_epoch_end", 1)
    moments = MOMENTS if kind != "workers" else MOMENTS[1:4]
    if kind == "objects":
        moments = [moment for moment in MOMENTS if moment != ends_itself]
    for hook, occurrence in moments:
        folder = tmp_path / f"{hook}{occurrence}"
        path = folder / "here.ckpt"
        seed_everything(7, verbose=False)
        with pytest.raises(KeyboardInterrupt):
            fit(
                module_class(),
                folder,
                extra=[Interrupt(hook, occurrence, path)],
                **flags,
            )
        seed_everything(99, verbose=False)  # nothing may depend on it
        resumed = fit(module_class(), folder, resume=path, **flags)
        assert_equal(final_state(resumed, folder), whole, f"{hook} {occurrence}")


def test_checkpoint_of_a_finished_fit_goes_on_with_more_epochs(tmp_path: Path) -> None:
    def train(epochs: int, resume: str | None = None) -> Trainer:
        seed_everything(7, verbose=False)
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=epochs,
            logger=False,
            callbacks=[ModelCheckpoint(tmp_path / str(epochs), save_last=True)],
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        loader = DataLoader(Noisy(), batch_size=2, shuffle=True)
        trainer.fit(Model(), loader, DataLoader(Noisy(4)), ckpt_path=resume)
        return trainer

    whole = train(4)
    train(2)
    resumed = train(5, str(tmp_path / "2" / "last.ckpt"))
    assert resumed.current_epoch == 5
    train(3)
    again = train(4, str(tmp_path / "3" / "last.ckpt"))
    weights = again.lightning_module.state_dict()
    for name, expected in whole.lightning_module.state_dict().items():
        assert torch.equal(weights[name], expected)


def test_fit_stopped_inside_an_epoch_reads_its_other_batches(tmp_path: Path) -> None:
    def train(steps: int, resume: Path | None = None) -> dict[str, torch.Tensor]:
        seed_everything(7, verbose=False)
        trainer = quick_trainer(max_steps=steps)
        loader = DataLoader(Noisy(), batch_size=2, shuffle=True)
        trainer.fit(Model(), loader, DataLoader(Noisy(4)), ckpt_path=resume)
        trainer.save_checkpoint(tmp_path / f"{steps}.ckpt")
        return trainer.lightning_module.state_dict()

    whole = train(17)
    train(3)
    resumed = train(17, tmp_path / "3.ckpt")
    assert_equal(resumed, dict(whole), "weights")


def test_loader_with_a_generator_of_its_own_goes_on(tmp_path: Path) -> None:
    def train(epochs: int, resume: Path | None = None) -> list[list[float]]:
        seed_everything(7, verbose=False)
        seen: list[list[float]] = []

        class Watching(Model):
            def training_step(self, batch: Any, batch_idx: int) -> Any:
                seen.append(batch[:, 0].tolist())
                return super().training_step(batch, batch_idx)

        trainer = quick_trainer(max_epochs=epochs)
        generator = torch.Generator().manual_seed(5)
        loader = DataLoader(
            torch.randn(6, 4, generator=torch.Generator().manual_seed(0)),
            batch_size=2,
            shuffle=True,
            generator=generator,
        )
        trainer.fit(Watching(), loader, DataLoader(Noisy(4)), ckpt_path=resume)
        trainer.save_checkpoint(tmp_path / f"{epochs}.ckpt")
        return seen

    whole = train(3)
    train(1)
    assert train(3, tmp_path / "1.ckpt") == whole[3:]


def test_checkpoint_after_validating_an_interrupted_fit_resumes(tmp_path: Path) -> None:
    loader = DataLoader(Noisy(), batch_size=2)
    trainer = quick_trainer(max_epochs=2)

    class Failing(Model):
        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            if self.global_step == 3:
                raise ValueError("stop here")

    module = Failing()
    with pytest.raises(ValueError, match="stop here"):
        trainer.fit(module, loader, DataLoader(Noisy(4)))
    trainer.validate(module, DataLoader(Noisy(4)), verbose=False)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    again = quick_trainer(max_epochs=2)
    again.fit(Model(), loader, DataLoader(Noisy(4)), ckpt_path=tmp_path / "x.ckpt")
    assert again.global_step == 14


def test_log_options_of_the_code_win_over_those_of_the_file(tmp_path: Path) -> None:
    class Changed(Model):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = self.net(batch).pow(2).mean()
            self.log("loss", loss, on_step=False, on_epoch=True)
            return loss

    path = tmp_path / "x.ckpt"
    with pytest.raises(KeyboardInterrupt):
        fit(Model(), tmp_path, extra=[Interrupt("on_train_batch_end", 3, path)])
    fit(Changed(), tmp_path / "b", resume=path)
    header = (tmp_path / "b" / "log" / "metrics.csv").read_text().splitlines()[0]
    assert "loss_step" not in header.split(",")


def test_file_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    trainer = quick_trainer(max_epochs=1)
    loader = DataLoader(Noisy(), batch_size=2)
    trainer.fit(Model(), loader, DataLoader(Noisy(4)))
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    content = torch.load(tmp_path / "x.ckpt", weights_only=True)
    content["lightgen"]["format"] = 99
    torch.save(content, tmp_path / "x.ckpt")
    with pytest.raises(CheckpointFormatError, match="newer version"):
        quick_trainer(max_epochs=2).fit(
            Model(), loader, DataLoader(Noisy(4)), ckpt_path=tmp_path / "x.ckpt"
        )
