"""`BaseFinetuning` and `BackboneFinetuning`: what trains when, resuming, bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from resuming import assert_resumes
from small_runs import Small, fitted

from lightgen_runtime import Callback
from lightgen_runtime.callbacks import BackboneFinetuning, BaseFinetuning
from lightgen_runtime.utilities.exceptions import MisconfigurationException


class Net(Small):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = torch.nn.Sequential(
            torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3)
        )
        self.layer = torch.nn.Linear(3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.layer(self.backbone(x))
        return output

    def configure_optimizers(self) -> Any:
        trained = [p for p in self.parameters() if p.requires_grad]
        return torch.optim.Adam(trained, lr=0.1)


class Weights(Callback):
    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.seen.append(pl_module.backbone[0].weight.detach().clone())


def test_backbone_stands_still_until_its_epoch() -> None:
    weights, module = Weights(), Net()
    before = module.backbone[0].weight.detach().clone()
    trainer = fitted(
        module,
        callbacks=[BackboneFinetuning(unfreeze_backbone_at_epoch=2), weights],
        max_epochs=4,
    )
    assert torch.equal(weights.seen[1], before)
    assert not torch.equal(weights.seen[2], before)
    rates = [group["lr"] for group in trainer.optimizers[0].param_groups]
    assert rates == pytest.approx([0.1, 0.02])


def test_rate_of_the_backbone_stays_below_the_heads() -> None:
    callback = BackboneFinetuning(
        unfreeze_backbone_at_epoch=0, lambda_func=lambda epoch: 100.0
    )
    trainer = fitted(Net(), callbacks=[callback], max_epochs=2)
    assert trainer.optimizers[0].param_groups[1]["lr"] == 0.1


def test_verbose_tells_both_rates(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="lightgen_runtime")
    callback = BackboneFinetuning(
        unfreeze_backbone_at_epoch=0, verbose=True, rounding=3
    )
    fitted(Net(), callbacks=[callback])
    assert "Learning rate: 0.1, of the backbone: 0.01" in caplog.text


class Later(BaseFinetuning):
    def freeze_before_training(self, pl_module: Any) -> None:
        self.freeze(pl_module.backbone, train_bn=False)

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: Any) -> None:
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.backbone[0], optimizer)
        if epoch == 2:
            self.unfreeze_and_add_param_group(pl_module.backbone[1], optimizer, lr=0.02)


@pytest.mark.parametrize(
    "make", [Later, lambda: BackboneFinetuning(unfreeze_backbone_at_epoch=1)]
)
def test_resumed_fit_equals_uninterrupted_fit(make: Any, tmp_path: Path) -> None:
    moments = [
        ("on_train_batch_end", 2),
        ("on_train_epoch_end", 1),
        ("on_train_batch_end", 9),
        ("on_validation_end", 2),
        ("on_train_epoch_end", 3),
    ]
    assert_resumes(Net, make, tmp_path / "a.ckpt", moments, max_epochs=5)


def test_parameters_that_are_trained_already_keep_their_group() -> None:
    class All(Net):
        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    with pytest.warns(UserWarning, match="2 of 2 parameters"):
        trainer = fitted(
            All(), callbacks=[BackboneFinetuning(unfreeze_backbone_at_epoch=0)]
        )
    assert len(trainer.optimizers[0].param_groups) == 1


def test_module_without_a_backbone_is_refused() -> None:
    with pytest.raises(MisconfigurationException, match=r"self\.backbone"):
        fitted(Small(), callbacks=[BackboneFinetuning()])


def test_methods_to_override_are_named() -> None:
    with pytest.raises(NotImplementedError, match="freeze_before_training"):
        fitted(Net(), callbacks=[BaseFinetuning()])
