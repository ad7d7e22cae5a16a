"""Several optimizers that step as one, in a fit whose callbacks add parameters."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_runs import Small, loader, quiet

from lightgen_runtime.callbacks import BaseFinetuning
from lightgen_runtime.optim import CombinedOptimizer
from lightgen_runtime.utilities.exceptions import MisconfigurationException


class TwoLayers(Small):
    """The second layer is frozen at first."""

    def __init__(self, given: bool) -> None:
        super().__init__()
        self.late = torch.nn.Linear(4, 1)
        self.given = given

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return (self.layer(batch) + self.late(batch)).pow(2).mean()

    def configure_optimizers(self) -> Any:
        rest = [self.layer.bias, *(self.late.parameters() if self.given else ())]
        return CombinedOptimizer(
            torch.optim.SGD([self.layer.weight], lr=0.1), torch.optim.Adam(rest, lr=0.1)
        )


class Thaw(BaseFinetuning):
    def freeze_before_training(self, pl_module: Any) -> None:
        self.freeze(pl_module.late)

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: Any) -> None:
        if epoch == 1 and pl_module.given:
            self.make_trainable(pl_module.late)
        elif epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.late, optimizer)


def test_group_that_no_optimizer_would_step_is_refused() -> None:
    with pytest.raises(MisconfigurationException, match="all parameters at the start"):
        quiet(max_epochs=2, callbacks=[Thaw()]).fit(TwoLayers(False), loader())


def test_parameters_given_at_the_start_are_trained_once_they_thaw() -> None:
    module = TwoLayers(True)
    before = module.late.weight.detach().clone()
    quiet(max_epochs=1, callbacks=[Thaw()]).fit(module, loader())
    assert torch.equal(before, module.late.weight)
    quiet(max_epochs=2, callbacks=[Thaw()]).fit(module, loader())
    assert not torch.equal(before, module.late.weight)
