"""Rows of docs/compat.md on modules and trainers, on both packages."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from recording import OURS, REFERENCE, data, quiet_trainer, small_module

from lightgen_runtime.utilities.exceptions import MisconfigurationException

pytestmark = pytest.mark.filterwarnings("ignore")


def test_log_of_a_nested_module() -> None:
    def run(namespace: str, in_a_list: bool) -> Any:
        base = importlib.import_module(namespace).LightningModule

        class Inner(base):  # type: ignore[misc,valid-type]
            def note(self) -> None:
                self.log("noted", 3.0)

        class Outer(small_module(namespace)):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.inner = torch.nn.ModuleList([Inner()]) if in_a_list else Inner()

            def training_step(self, batch: Any, batch_idx: int) -> Any:
                (self.inner[0] if in_a_list else self.inner).note()
                return super().training_step(batch, batch_idx)

        trainer = quiet_trainer(namespace, max_epochs=1)
        trainer.fit(Outer(), data())
        return dict(trainer.callback_metrics)

    with pytest.raises(Exception, match="not managed by the `Trainer`"):
        run(REFERENCE, in_a_list=False)
    assert run(REFERENCE, in_a_list=True) == {}
    assert run(OURS, in_a_list=False) == run(OURS, in_a_list=True) == {"noted": 3.0}


def test_step_that_takes_the_iterator() -> None:
    def run(namespace: str) -> int:
        class OfIterators(small_module(namespace)):  # type: ignore[misc]
            def training_step(self, dataloader_iter: Any) -> Any:
                batch, batch_idx, _ = next(dataloader_iter)
                return super().training_step(batch, batch_idx)

        trainer = quiet_trainer(namespace, max_epochs=1)
        trainer.fit(OfIterators(), data())
        steps: int = trainer.global_step
        return steps

    assert run(REFERENCE) == 4
    with pytest.raises(MisconfigurationException, match="dataloader_iter"):
        run(OURS)


def test_mode_of_a_module_that_is_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    def mode(namespace: str) -> bool:
        module = small_module(namespace)()
        module.to_onnx(None, torch.ones(1, 4))
        training: bool = modes.pop()
        return training

    modes: list[bool] = []
    importlib.import_module(REFERENCE)  # before it could find the stand-ins
    monkeypatch.setattr("lightning.pytorch.core.module._ONNX_AVAILABLE", True)
    for name in ("onnx", "onnxscript"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(
        torch.onnx, "export", lambda module, *_, **__: modes.append(module.training)
    )
    assert mode(REFERENCE) is True
    assert mode(OURS) is False


def test_exit_code_of_a_terminated_fit() -> None:
    def code(namespace: str) -> Any:
        class Terminated(small_module(namespace)):  # type: ignore[misc]
            def training_step(self, batch: Any, batch_idx: int) -> Any:
                os.kill(os.getpid(), signal.SIGTERM)
                return super().training_step(batch, batch_idx)

        with pytest.raises(SystemExit) as caught:
            quiet_trainer(namespace, max_epochs=1).fit(Terminated(), data())
        return caught.value.code

    assert code(REFERENCE) is None  # which the interpreter takes for 0
    assert code(OURS) == 143


def test_fit_after_no_exception(tmp_path: Path) -> None:
    def run(namespace: str) -> bool:
        callbacks = importlib.import_module(f"{namespace}.pytorch.callbacks")
        folder = tmp_path / namespace
        for _ in range(2):
            kept = callbacks.ModelCheckpoint(folder, save_last=True)
            guard = callbacks.OnExceptionCheckpoint(folder)
            trainer = quiet_trainer(
                namespace,
                max_epochs=1,
                callbacks=[kept, guard],
                enable_checkpointing=True,
            )
            trainer.fit(small_module(namespace)(), data())
        return trainer.ckpt_path is not None

    assert run(REFERENCE)
    assert not run(OURS)
