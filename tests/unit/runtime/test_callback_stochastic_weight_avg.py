"""`StochasticWeightAveraging`: the average, its batch norms, resuming, bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from resuming import assert_resumes
from small_runs import Small, fitted, loader, quiet, variant

from lightgen_runtime import Callback
from lightgen_runtime.callbacks import StochasticWeightAveraging
from lightgen_runtime.utilities.exceptions import MisconfigurationException


class Normed(Small):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Sequential(
            torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 1)
        )


class Weights(Callback):
    """Keeps the weights with which each epoch starts."""

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self.seen.append(pl_module.layer.weight.detach().clone())


def test_fit_ends_with_the_mean_of_the_last_epochs() -> None:
    weights, module = Weights(), Small()
    fitted(
        module,
        max_epochs=5,
        callbacks=[weights, StochasticWeightAveraging(0.01, swa_epoch_start=3)],
    )
    torch.testing.assert_close(
        module.layer.weight.detach(), torch.stack(weights.seen[2:]).mean(0)
    )


def test_own_average_and_device() -> None:
    def keep_first(average: Any, weights: Any, number: Any) -> Any:
        return average

    weights, module = Weights(), Small()
    averaging = StochasticWeightAveraging(
        0.01, swa_epoch_start=2, avg_fn=keep_first, device=None
    )
    fitted(module, max_epochs=4, callbacks=[weights, averaging])
    assert torch.equal(module.layer.weight, weights.seen[1])


def test_batch_norm_statistics_are_those_of_the_average() -> None:
    module = Normed()
    averaging = StochasticWeightAveraging(0.05, swa_epoch_start=2)
    trainer = quiet(max_epochs=3, callbacks=[averaging])
    trainer.fit(module, loader())  # without validation, which would clear gradients
    first, norm = module.layer[0], module.layer[1]
    means = torch.stack([first(batch).mean(0) for batch in loader()])
    torch.testing.assert_close(norm.running_mean, means.mean(0).detach())
    assert norm.momentum == 0.1
    assert averaging._average_model is not None
    for ours, average in zip(
        module.parameters(), averaging._average_model.parameters(), strict=True
    ):
        assert torch.equal(ours, average)
    assert trainer.global_step == 12


def test_nothing_is_averaged_before_its_epoch() -> None:
    plain, averaged = Small(), Small()
    fitted(plain, max_epochs=2)
    callback = StochasticWeightAveraging(0.01, swa_epoch_start=5)
    fitted(averaged, max_epochs=2, callbacks=[callback])
    assert torch.equal(plain.layer.weight, averaged.layer.weight)
    assert callback.state_dict()["n_averaged"] == 0


@pytest.mark.parametrize("module", [Small, Normed])
@pytest.mark.parametrize("scheduled", [False, True])
def test_resumed_fit_equals_uninterrupted_fit(
    module: type[Small], scheduled: bool, tmp_path: Path
) -> None:
    def configure_optimizers(self: Any) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        if not scheduled:
            return optimizer
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]

    made = type("Scheduled", (module,), {"configure_optimizers": configure_optimizers})
    moments = [
        ("on_train_batch_end", 3),
        ("on_train_epoch_end", 1),
        ("on_train_batch_end", 10),
        ("on_validation_end", 2),
        ("on_train_epoch_end", 3),
    ]
    if module is Normed:
        moments += [("on_train_batch_end", 26), ("on_validation_end", 5)]
    assert_resumes(
        made,
        lambda: StochasticWeightAveraging(0.05, swa_epoch_start=2, annealing_epochs=2),
        tmp_path / "a.ckpt",
        moments,
        max_epochs=4,
    )


def test_second_fit_starts_a_new_average() -> None:
    callback = StochasticWeightAveraging(0.05, swa_epoch_start=1)
    for _ in range(2):
        fitted(Small(), max_epochs=2, callbacks=[callback])
        assert callback.state_dict()["n_averaged"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"swa_lrs": 0.0}, "swa_lrs"),
        ({"swa_lrs": [0.1, -1.0]}, "swa_lrs"),
        ({"swa_lrs": "fast"}, "swa_lrs"),
        ({"swa_lrs": 0.1, "swa_epoch_start": 0}, "swa_epoch_start"),
        ({"swa_lrs": 0.1, "swa_epoch_start": 1.5}, "swa_epoch_start"),
        ({"swa_lrs": 0.1, "annealing_epochs": -1}, "annealing_epochs"),
        ({"swa_lrs": 0.1, "annealing_strategy": "log"}, "'cos' and 'linear'"),
        ({"swa_lrs": 0.1, "avg_fn": 3}, "avg_fn"),
    ],
    ids=str,
)
def test_bad_argument_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(MisconfigurationException, match=message):
        StochasticWeightAveraging(**arguments)


def test_several_schedulers_are_refused() -> None:
    def configure_optimizers(self: Any) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        schedulers = [torch.optim.lr_scheduler.StepLR(optimizer, 1) for _ in range(2)]
        return [optimizer], schedulers

    with pytest.raises(MisconfigurationException, match="one scheduler"):
        fitted(
            variant(configure_optimizers=configure_optimizers),
            callbacks=[StochasticWeightAveraging(0.1)],
        )


def test_rates_that_do_not_fit_the_groups_are_refused() -> None:
    callback = StochasticWeightAveraging([0.1, 0.2], swa_epoch_start=1)
    with pytest.raises(MisconfigurationException, match="2 learning rates"):
        fitted(Small(), callbacks=[callback])


def test_fit_without_a_last_epoch_is_refused() -> None:
    with pytest.raises(MisconfigurationException, match="max_epochs"):
        fitted(
            Small(),
            max_epochs=-1,
            max_steps=3,
            callbacks=[StochasticWeightAveraging(0.1)],
        )
