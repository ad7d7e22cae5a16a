"""Rows of docs/compat.md on modules and trainers, on both packages."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from recording import data, quiet_trainer, small_module

OURS, REFERENCE = "lightgen_runtime", "lightning"

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
