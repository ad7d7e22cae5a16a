"""What checkpoint callbacks keep that is something else on purpose, on both packages."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import pytest
import torch
from recording import OURS, REFERENCE, callbacks_of, data, quiet_trainer
from test_callbacks import build, sgd

from lightgen_runtime.utilities.exceptions import MisconfigurationException

BOTH = pytest.mark.parametrize("namespace", [OURS, REFERENCE])

pytestmark = pytest.mark.filterwarnings("ignore")


@BOTH
def test_averaged_weights_in_a_file_of_weights_alone(
    namespace: str, tmp_path: Path
) -> None:
    validated = []

    def validation_step(self: Any, batch: Any, batch_idx: int) -> None:
        validated.append(self.layer.weight.detach().clone())

    callbacks = callbacks_of(namespace)
    weights = callbacks.ModelCheckpoint(tmp_path, "{epoch}", save_weights_only=True)
    trainer = quiet_trainer(
        namespace,
        max_epochs=3,
        callbacks=[callbacks.EMAWeightAveraging(decay=0.5), weights],
        enable_checkpointing=True,
    )
    module = build(namespace, validation_step=validation_step, configure_optimizers=sgd)
    trainer.fit(module, data(12, 2), data(4))
    saved = torch.load(weights.best_model_path, weights_only=True)["state_dict"]
    assert saved.keys() == module.state_dict().keys()
    are_those_validated = torch.equal(saved["layer.weight"], validated[-1])
    assert are_those_validated is (namespace == OURS)


@BOTH
@pytest.mark.parametrize("keep", [{"save_top_k": 0}, {"monitor": "val_loss"}], ids=str)
def test_last_checkpoint_is_the_newest(
    namespace: str, keep: dict[str, Any], tmp_path: Path
) -> None:
    def validation_step(self: Any, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", float(self.trainer.current_epoch))  # worse and worse

    states = []

    def on_train_epoch_start(self: Any) -> None:
        path = tmp_path / "last.ckpt"
        if path.exists():
            states.append(torch.load(path, weights_only=True)["epoch"])

    checkpoint = callbacks_of(namespace).ModelCheckpoint(
        tmp_path, "best", save_last=True, **keep
    )
    trainer = quiet_trainer(
        namespace, max_epochs=4, callbacks=[checkpoint], enable_checkpointing=True
    )
    methods = {
        "validation_step": validation_step,
        "on_train_epoch_start": on_train_epoch_start,
    }
    module = build(namespace, configure_optimizers=sgd, **methods)
    trainer.fit(module, data(12, 2), data(4))
    if namespace == OURS:
        assert states == [0, 1, 2]
    else:
        assert states == ([] if "save_top_k" in keep else [0, 0, 0])


@BOTH
def test_last_checkpoint_of_a_trial_run(namespace: str, tmp_path: Path) -> None:
    checkpoint = callbacks_of(namespace).ModelCheckpoint(tmp_path, save_last=True)
    trainer = quiet_trainer(
        namespace, callbacks=[checkpoint], fast_dev_run=True, enable_checkpointing=True
    )
    trainer.fit(build(namespace, configure_optimizers=sgd), data(12, 2), data(4))
    assert any(tmp_path.iterdir()) is (namespace == REFERENCE)


@BOTH
def test_hook_before_a_file_is_written(namespace: str, tmp_path: Path) -> None:
    steps = []

    def on_save_checkpoint(self: Any, checkpoint: dict[str, Any]) -> None:
        steps.append(self.trainer.global_step)

    checkpoint = callbacks_of(namespace).ModelCheckpoint(tmp_path)
    trainer = quiet_trainer(
        namespace, max_epochs=1, callbacks=[checkpoint], enable_checkpointing=True
    )
    methods = {"on_save_checkpoint": on_save_checkpoint, "configure_optimizers": sgd}
    trainer.fit(build(namespace, **methods), data(12, 2))
    # Once more here, before training, with a checkpoint that is not written.
    assert steps == ([0, 6] if namespace == OURS else [6])


@BOTH
def test_state_that_no_loader_reads(namespace: str, tmp_path: Path) -> None:
    trained = []

    def on_save_checkpoint(self: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint["mine"] = {"part": torch.nn.Identity()}

    def on_train_batch_end(self: Any, *args: Any) -> None:
        trained.append(1)

    checkpoint = callbacks_of(namespace).ModelCheckpoint(tmp_path)
    trainer = quiet_trainer(
        namespace, max_epochs=1, callbacks=[checkpoint], enable_checkpointing=True
    )
    methods = {"on_save_checkpoint": on_save_checkpoint, "configure_optimizers": sgd}
    module = build(namespace, on_train_batch_end=on_train_batch_end, **methods)
    if namespace == OURS:
        with pytest.raises(MisconfigurationException, match=r"`mine\.part`"):
            trainer.fit(module, data(12, 2))
        assert trained == []
    else:
        trainer.fit(module, data(12, 2))
        with pytest.raises(UnpicklingError):
            torch.load(checkpoint.best_model_path, weights_only=True)
