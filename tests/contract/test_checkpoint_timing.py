"""At which moments `ModelCheckpoint` and `EarlyStopping` act, and what a resume accepts."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from recording import OURS, REFERENCE, data, quiet_trainer, small_module

BOTH = (OURS, REFERENCE)

pytestmark = pytest.mark.filterwarnings("ignore")


def watched(namespace: str) -> Any:
    class Module(small_module(namespace)):  # type: ignore[misc]
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = super().training_step(batch, batch_idx)
            self.log("loss", loss)
            return loss

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val_loss", self.layer(batch).pow(2).mean())

    return Module()


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "last by steps": ({"every_n_train_steps": 3, "save_last": True}, {}),
    "last by epochs": ({"every_n_epochs": 2, "save_last": True}, {}),
    "last when nothing was due": ({"every_n_epochs": 9, "save_last": True}, {}),
    "last and nothing else": (
        {"save_top_k": 0, "save_last": True, "every_n_epochs": 9},
        {},
    ),
    "interval of an epoch": ({}, {"val_check_interval": 4}),
    "steps that end epochs": (
        {"every_n_train_steps": 4, "monitor": "val_loss", "save_top_k": -1},
        {"val_check_interval": 2},
    ),
    "steps that end epochs, loss": (
        {"every_n_train_steps": 4, "monitor": "loss", "save_top_k": -1},
        {"val_check_interval": 4},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_checkpoints_are_written_at_the_same_moments(case: str, tmp_path: Path) -> None:
    arguments, flags = CASES[case]
    saved: dict[str, list[Any]] = {namespace: [] for namespace in BOTH}
    for namespace in BOTH:
        callbacks = importlib.import_module(f"{namespace}.pytorch.callbacks")

        class Checkpoint(callbacks.ModelCheckpoint):  # type: ignore[misc,name-defined]
            moments = saved[namespace]

            def state_dict(self) -> dict[str, Any]:
                score = self.current_score
                self.moments.append(None if score is None else float(score))
                return super().state_dict()

            def on_validation_end(self, *args: Any) -> None:
                self.moments.append("validated")
                super().on_validation_end(*args)

            def on_train_epoch_end(self, trainer: Any, *args: Any) -> None:
                self.moments.append(f"epoch {trainer.current_epoch}")
                super().on_train_epoch_end(trainer, *args)

        callback = Checkpoint(tmp_path / namespace, **arguments)
        trainer = quiet_trainer(
            namespace,
            max_epochs=3,
            callbacks=[callback],
            **{"enable_checkpointing": True, **flags},
        )
        trainer.fit(watched(namespace), data(), data(4))
        files = sorted(path.name for path in (tmp_path / namespace).glob("*.ckpt"))
        saved[namespace].append(files)
    # Ours asks once what there will be to save (`test_hook_before_a_file_is_written`).
    asked, *ours = saved[OURS]
    assert asked is None
    assert ours == saved[REFERENCE]


@pytest.mark.parametrize("flags", [{"val_check_interval": 4}, {}], ids=str)
def test_early_stopping_checks_at_the_same_moments(flags: dict[str, Any]) -> None:
    checks: dict[str, list[int]] = {namespace: [] for namespace in BOTH}
    for namespace in BOTH:
        callbacks = importlib.import_module(f"{namespace}.pytorch.callbacks")

        class Stopping(callbacks.EarlyStopping):  # type: ignore[misc,name-defined]
            moments = checks[namespace]

            def on_validation_end(self, *args: Any) -> None:
                super().on_validation_end(*args)
                self.moments.append(self.wait_count)

            def on_train_epoch_end(self, *args: Any) -> None:
                super().on_train_epoch_end(*args)
                self.moments.append(self.wait_count)

        callback = Stopping("val_loss", patience=9, min_delta=9.0)
        trainer = quiet_trainer(namespace, max_epochs=3, callbacks=[callback], **flags)
        trainer.fit(watched(namespace), data(), data(4))
    assert checks[OURS] == checks[REFERENCE]


def test_further_fit_saves_no_step_again(tmp_path: Path) -> None:
    """As in epochs without a batch, which a stop before their first one leaves."""

    def names(namespace: str) -> list[str]:
        callbacks = importlib.import_module(f"{namespace}.pytorch.callbacks")

        class Stop(callbacks.Callback):  # type: ignore[misc,name-defined]
            def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
                trainer.should_stop = trainer.current_epoch > 0

        folder = tmp_path / namespace
        keep = callbacks.ModelCheckpoint(folder, "{epoch}", save_top_k=-1)
        trainer = quiet_trainer(
            namespace, callbacks=[Stop(), keep], enable_checkpointing=True, max_epochs=4
        )
        module = watched(namespace)
        for _ in range(2):
            trainer.fit(module, data())
        assert (trainer.current_epoch, trainer.global_step) == (3, 4)
        return sorted(path.name for path in folder.glob("*.ckpt"))

    assert names(OURS) == names(REFERENCE) == ["epoch=0.ckpt"]
