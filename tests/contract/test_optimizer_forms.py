"""Less common things that `configure_optimizers` returns, in both packages."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from recording import OURS, REFERENCE, data, quiet_trainer, small_module
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    CosineAnnealingWarmRestarts,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)

BOTH = [OURS, REFERENCE]

pytestmark = pytest.mark.filterwarnings("ignore")


class Own(Optimizer):
    """An optimizer of a third party: its own step, state and attributes."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})
        self.taken = 0

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.taken += 1
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["steps"] = self.taken
                parameter.add_(parameter.grad.sign(), alpha=-group["lr"])
        return loss


class Derived(Adam):
    """A subclass that changes nothing."""


def halving(optimizer: Any, every: int = 1) -> Any:
    return StepLR(optimizer, every, 0.5)


def sgd(self: Any) -> Any:
    return SGD(self.parameters(), 0.1)


def a_tuple(self: Any) -> Any:
    return (sgd(self),)


def a_pair_with_one_dictionary(self: Any) -> Any:
    optimizer = sgd(self)
    return [optimizer], {"scheduler": halving(optimizer), "interval": "step"}


def a_dictionary(self: Any) -> Any:
    optimizer = sgd(self)
    return {"optimizer": optimizer, "lr_scheduler": halving(optimizer)}


def a_monitor_beside_the_optimizer(self: Any) -> Any:
    optimizer = sgd(self)
    plateau = ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
    return {"optimizer": optimizer, "lr_scheduler": plateau, "monitor": "loss"}


def a_plateau_in_each_step(self: Any) -> Any:
    optimizer = sgd(self)
    plateau = ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
    made = {"scheduler": plateau, "monitor": "loss", "interval": "step"}
    return {"optimizer": optimizer, "lr_scheduler": made}


def a_list_of_one_dictionary(self: Any) -> Any:
    optimizer = sgd(self)
    scheduler = {"scheduler": halving(optimizer), "name": "mine", "monitor": "loss"}
    return [{"optimizer": optimizer, "lr_scheduler": scheduler, "monitor": "loss"}]


def a_tuple_of_one_dictionary(self: Any) -> Any:
    return (a_dictionary(self),)


def two_schedulers_of_one_optimizer(self: Any) -> Any:
    optimizer = sgd(self)
    every_step = {
        "scheduler": halving(optimizer, 2),
        "interval": "step",
        "name": "fast",
    }
    return [optimizer], [halving(optimizer), every_step]


def schedulers_of_schedulers(self: Any) -> Any:
    optimizer = sgd(self)
    chained = ChainedScheduler([halving(optimizer)], optimizer=optimizer)
    parts = [halving(optimizer), CosineAnnealingWarmRestarts(optimizer, 2)]
    sequence = SequentialLR(optimizer, parts, milestones=[1])
    return [optimizer], [chained, {"scheduler": sequence, "interval": "step"}]


def an_optimizer_of_a_third_party(self: Any) -> Any:
    optimizer = Own(self.parameters(), 0.01)
    return [optimizer], [halving(optimizer)]


def a_subclass(self: Any) -> Any:
    return Derived(self.parameters(), 0.01)


def groups_of_parameters(self: Any) -> Any:
    groups = [
        {"params": [self.layer.weight], "lr": 0.2},
        {"params": [self.layer.bias], "weight_decay": 0.1},
    ]
    optimizer = SGD(groups, 0.1)
    return [optimizer], [halving(optimizer)]


FORMS = {
    form.__name__: form
    for form in (
        a_tuple,
        a_pair_with_one_dictionary,
        a_dictionary,
        a_monitor_beside_the_optimizer,
        a_plateau_in_each_step,
        a_list_of_one_dictionary,
        a_tuple_of_one_dictionary,
        two_schedulers_of_one_optimizer,
        schedulers_of_schedulers,
        an_optimizer_of_a_third_party,
        a_subclass,
        groups_of_parameters,
    )
}


def train(namespace: str, configure: Any, manual: bool, **methods: Any) -> Any:
    rates: list[list[float]] = []

    class Module(small_module(namespace)):  # type: ignore[misc]
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = super().training_step(batch, batch_idx)
            self.log("loss", loss)
            optimizer = self.optimizers()
            rates.append([float(group["lr"]) for group in optimizer.param_groups])
            if manual:
                optimizer.zero_grad()
                self.manual_backward(loss)
                optimizer.step()
                self.step_schedulers(loss)
            return loss

        def step_schedulers(self, loss: Any) -> None:
            found = self.lr_schedulers()
            for each in found if isinstance(found, list) else [found]:
                if isinstance(each, ReduceLROnPlateau):
                    each.step(loss)
                elif each is not None:
                    each.step()

    members = {"configure_optimizers": configure, **methods}
    module = type("Configured", (Module,), members)()
    module.automatic_optimization = not manual
    trainer = quiet_trainer(namespace, max_epochs=3)
    trainer.fit(module, data(8, 2))
    shown = [
        (type(config.scheduler), config.interval, config.frequency, config.name)
        for config in trainer.lr_scheduler_configs
    ]
    return rates, shown, trainer.global_step, module.state_dict()


@pytest.mark.parametrize("manual", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_form_trains_the_same(form: str, manual: bool) -> None:
    *ours, our_weights = train(OURS, FORMS[form], manual)
    *theirs, their_weights = train(REFERENCE, FORMS[form], manual)
    assert ours == theirs
    for name, weight in their_weights.items():
        assert torch.equal(our_weights[name], weight), name


def test_scheduler_with_steps_of_its_own() -> None:
    class Inverse:
        """No subclass of torch's; its `step` wants to know the epoch."""

        def __init__(self, optimizer: Any) -> None:
            self.optimizer = optimizer

        def step(self, epoch: int) -> None:
            for group in self.optimizer.param_groups:
                group["lr"] = 0.1 / (1 + epoch)

        def state_dict(self) -> Any:
            return {}

        def load_state_dict(self, state: Any) -> None:
            pass

    def configure(self: Any) -> Any:
        optimizer = sgd(self)
        return [optimizer], [Inverse(optimizer)]

    def lr_scheduler_step(self: Any, scheduler: Any, metric: Any) -> None:
        assert metric is None
        scheduler.step(epoch=self.current_epoch)

    ours, theirs = (
        train(namespace, configure, False, lr_scheduler_step=lr_scheduler_step)
        for namespace in BOTH
    )
    assert ours[0] == theirs[0]
    assert {rate for (rate,) in ours[0]} == {0.1, 0.05}


@pytest.mark.parametrize("namespace", BOTH)
@pytest.mark.parametrize(
    "entries",
    [{"monitor": "loss"}, {"strict": False}, {"monitor": "a", "strict": False}],
)
def test_what_manual_optimization_ignores_is_warned_about(
    namespace: str, entries: dict[str, Any]
) -> None:
    def configure(self: Any) -> Any:
        optimizer = sgd(self)
        return [optimizer], [{"scheduler": halving(optimizer), **entries}]

    with pytest.warns(Warning, match=rf"{next(iter(entries))}.*manual optimization"):
        train(namespace, configure, manual=True)


@pytest.mark.parametrize("namespace", BOTH)
def test_nothing_to_optimize_still_has_an_optimizer_to_ask(namespace: str) -> None:
    L = importlib.import_module(namespace)
    seen: list[Any] = []

    class Still(small_module(namespace)):  # type: ignore[misc]
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            seen.append(self.optimizers().state_dict())
            return super().training_step(batch, batch_idx)

        def configure_optimizers(self) -> Any:
            return None

    module = Still()
    before = module.layer.weight.clone()
    trainer = quiet_trainer(namespace, max_epochs=1)
    trainer.fit(module, data())
    assert isinstance(trainer, L.Trainer)
    assert len(seen) == trainer.global_step == 4
    assert torch.equal(module.layer.weight, before)
