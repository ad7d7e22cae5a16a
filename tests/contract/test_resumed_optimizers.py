"""A resumed fit goes on with its optimizer, whatever the optimizer's kind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from recording import data, quiet_trainer, small_module

BOTH = ("lightgen_runtime", "lightning")


@pytest.mark.filterwarnings("ignore")
def test_lbfgs_is_resumed(tmp_path: Path) -> None:
    weights = []
    for namespace in BOTH:
        path = tmp_path / f"{namespace}.ckpt"
        for epochs in (1, 2):
            module = small_module(namespace)()
            module.configure_optimizers = lambda module=module: torch.optim.LBFGS(
                module.parameters(), lr=0.1, max_iter=2
            )
            trainer = quiet_trainer(namespace, max_epochs=epochs)
            trainer.fit(module, data(), ckpt_path=path if epochs == 2 else None)
            trainer.save_checkpoint(path)
        weights.append(module.layer.weight)
    assert torch.equal(*weights)
