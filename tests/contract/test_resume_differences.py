"""Where a resumed fit goes on differently, on both packages."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from recording import OURS, REFERENCE, callbacks_of, data, quiet_trainer, small_module
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR

from lightgen_runtime.utilities.exceptions import CheckpointFormatError


def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
    loss = self.layer(batch).square().mean()
    self.log("loss", loss)
    return loss


def configure_optimizers(self: Any) -> Any:
    return SGD(self.parameters(), lr=0.1)


LOGGING = {"training_step": training_step, "configure_optimizers": configure_optimizers}

pytestmark = pytest.mark.filterwarnings("ignore")


def test_schedule_of_a_prolonged_run(tmp_path: Path) -> None:
    def rates_after_resuming(namespace: str) -> list[float]:
        rates: list[float] = []

        def configure_optimizers(self: Any) -> Any:
            optimizer = SGD(self.parameters(), lr=0.1)
            total = self.trainer.estimated_stepping_batches
            scheduler = CosineAnnealingLR(optimizer, T_max=total)
            return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

        class Watch(importlib.import_module(namespace).Callback):  # type: ignore
            def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
                rates.append(trainer.optimizers[0].param_groups[0]["lr"])

        members = {"configure_optimizers": configure_optimizers}
        module = type("Module", (small_module(namespace),), members)()
        trainer = quiet_trainer(namespace, max_epochs=2)
        trainer.fit(module, data())
        trainer.save_checkpoint(path := tmp_path / f"{namespace}.ckpt")
        trainer = quiet_trainer(namespace, max_epochs=4, callbacks=[Watch()])
        trainer.fit(module, data(), ckpt_path=path)
        return rates

    # 4 batches an epoch: the first run ended its cosine at step 8.
    theirs, ours = rates_after_resuming(REFERENCE), rates_after_resuming(OURS)
    assert theirs[-1] == pytest.approx(0.1)  # up again, to where it had begun
    assert 0.04 < ours[0] < 0.05  # half-way through a cosine of 16 steps
    assert ours[-1] < 1e-3


def test_resume_with_another_rate(tmp_path: Path) -> None:
    def rate_after_resuming(namespace: str) -> float:
        for rate, epochs in ((0.1, 1), (0.02, 2)):
            module = small_module(namespace)()
            optimizer = SGD(module.parameters(), lr=rate)
            module.configure_optimizers = lambda optimizer=optimizer: optimizer
            trainer = quiet_trainer(namespace, max_epochs=epochs)
            path = tmp_path / f"{namespace}.ckpt"
            trainer.fit(module, data(), ckpt_path=path if epochs == 2 else None)
            trainer.save_checkpoint(path)
        return float(optimizer.param_groups[0]["lr"])

    assert rate_after_resuming(REFERENCE) == 0.1
    assert rate_after_resuming(OURS) == 0.02


def saving_at(namespace: str, path: Path) -> Any:
    class Save(importlib.import_module(namespace).Callback):  # type: ignore
        def on_validation_batch_end(
            self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            if batch_idx == 1 and trainer.current_epoch == 0:
                trainer.save_checkpoint(path)

    return Save()


def test_resume_inside_a_validation(tmp_path: Path) -> None:
    def validated_after_resuming(namespace: str) -> list[int]:
        seen: list[int] = []

        def validation_step(self: Any, batch: Any, batch_idx: int) -> None:
            seen.append(batch_idx)

        members = {"validation_step": validation_step}
        kind = type("Module", (small_module(namespace),), members)
        path = tmp_path / f"{namespace}.ckpt"
        flags: dict[str, Any] = {"max_epochs": 1, "num_sanity_val_steps": 0}
        saving = [saving_at(namespace, path)]
        quiet_trainer(namespace, callbacks=saving, **flags).fit(kind(), data(), data())
        seen.clear()
        quiet_trainer(namespace, **flags).fit(kind(), data(), data(), ckpt_path=path)
        return seen

    assert validated_after_resuming(REFERENCE) == []
    assert validated_after_resuming(OURS) == [2, 3]


def test_rows_behind_the_checkpoint_of_a_resumed_fit(tmp_path: Path) -> None:
    def steps_in_the_file(namespace: str) -> list[str]:
        loggers = importlib.import_module(f"{namespace}.pytorch.loggers")
        path = tmp_path / f"{namespace}.ckpt"

        def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
            self.log("loss", loss := self.layer(batch).mean())
            return loss

        class Save(importlib.import_module(namespace).Callback):  # type: ignore
            def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
                if trainer.global_step == 2:
                    trainer.save_checkpoint(path)

        members = {"training_step": training_step}
        kind = type("Module", (small_module(namespace),), members)
        flags: dict[str, Any] = {"max_epochs": 1, "log_every_n_steps": 1}
        for callbacks, ckpt_path in (([Save()], None), ([], path)):
            logger = loggers.TensorBoardLogger(tmp_path / namespace, version=0)
            trainer = quiet_trainer(
                namespace, callbacks=callbacks, **{**flags, "logger": logger}
            )
            trainer.fit(kind(), data(), ckpt_path=ckpt_path)
        return read_steps(logger.log_dir)

    def read_steps(folder: str) -> list[str]:
        from tensorboard.backend.event_processing import event_accumulator

        found = event_accumulator.EventAccumulator(folder)
        found.Reload()
        return [str(event.step) for event in found.Scalars("loss")]

    assert len(steps_in_the_file(REFERENCE)) > 4
    assert steps_in_the_file(OURS) == ["0", "1", "2", "3"]


@pytest.mark.parametrize("namespace", [OURS, REFERENCE])
def test_scheduler_state_that_replaces_a_method(namespace: str, tmp_path: Path) -> None:
    def configure_optimizers(self: Any) -> Any:
        optimizer = SGD(self.parameters(), lr=0.1)
        return [optimizer], [CosineAnnealingLR(optimizer, 9)]

    members = {"configure_optimizers": configure_optimizers}
    module = type("Module", (small_module(namespace),), members)()
    trainer = quiet_trainer(namespace, max_epochs=1)
    trainer.fit(module, data())
    trainer.save_checkpoint(path := tmp_path / "x.ckpt")
    content = torch.load(path, weights_only=True)
    content["lr_schedulers"][0]["get_lr"] = "no method any more"
    torch.save(content, path)
    trainer = quiet_trainer(namespace, max_epochs=2)
    if namespace == OURS:
        with pytest.raises(CheckpointFormatError, match="get_lr"):
            trainer.fit(module, data(), ckpt_path=path)
    else:
        with pytest.raises(TypeError, match="not callable"):  # at the epoch's end
            trainer.fit(module, data(), ckpt_path=path)


@pytest.mark.parametrize("namespace", [OURS, REFERENCE])
def test_epochs_of_a_file_before_1_6(namespace: str, tmp_path: Path) -> None:
    stopping = callbacks_of(REFERENCE).EarlyStopping("loss", patience=9)
    trainer = quiet_trainer(REFERENCE, max_epochs=2, callbacks=[stopping])
    trainer.fit(type("Module", (small_module(REFERENCE),), LOGGING)(), data())
    trainer.save_checkpoint(path := tmp_path / "x.ckpt")
    # As that version wrote it, as far as a safe loader reads it.
    content = torch.load(path, weights_only=True)
    del content["loops"]
    torch.save({**content, "pytorch-lightning_version": "1.5.10", "epoch": 2}, path)
    stopping = callbacks_of(namespace).EarlyStopping("loss", patience=9)
    trainer = quiet_trainer(namespace, max_epochs=4, callbacks=[stopping])
    module = type("Module", (small_module(namespace),), LOGGING)()
    trainer.fit(module, data(), ckpt_path=path)
    assert trainer.global_step == (16 if namespace == OURS else 24)
    assert stopping.best_score < 1
