"""The same module, data and flags end with the same weights, bit for bit."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from recording import OURS, REFERENCE, data, quiet_trainer, small_module
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import (
    LambdaLR,
    OneCycleLR,
    ReduceLROnPlateau,
    StepLR,
)


def one(self: Any) -> Any:
    return Adam(self.parameters(), lr=0.01)


def lists(self: Any) -> Any:
    optimizer = SGD(self.parameters(), lr=0.1, momentum=0.9)
    return [optimizer], [StepLR(optimizer, step_size=1, gamma=0.5)]


def plateau(self: Any) -> Any:
    optimizer = SGD(self.parameters(), lr=0.1)
    return {
        "optimizer": optimizer,
        "lr_scheduler": {
            "scheduler": ReduceLROnPlateau(optimizer, patience=0, factor=0.5),
            "monitor": "val_loss",
            "interval": "epoch",
            "frequency": 1,
            "strict": True,
        },
    }


def warm_up(self: Any) -> Any:
    optimizer = Adam(self.parameters(), lr=0.001)
    scheduler = {
        "scheduler": OneCycleLR(
            optimizer,
            max_lr=0.01,
            total_steps=self.trainer.estimated_stepping_batches,
        ),
        "interval": "step",
    }
    return [optimizer], [scheduler]


def two_schedulers(self: Any) -> Any:
    optimizer = SGD(self.parameters(), lr=0.1)
    every_step = LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 5))
    return [optimizer], [
        {"scheduler": every_step, "interval": "step"},
        StepLR(optimizer, step_size=1),
    ]


def lbfgs(self: Any) -> Any:
    return torch.optim.LBFGS(self.parameters(), lr=0.5, max_iter=4)


def frozen_half(self: Any) -> Any:
    self.layer.bias.requires_grad = False
    return SGD([p for p in self.parameters() if p.requires_grad], lr=0.1)


def nothing(self: Any) -> Any:
    return None


OPTIMIZERS = {
    f.__name__: f
    for f in (
        one,
        lists,
        plateau,
        warm_up,
        two_schedulers,
        lbfgs,
        frozen_half,
        nothing,
    )
}


def train(
    namespace: str,
    methods: dict[str, Any],
    *,
    rows: int = 8,
    loader: dict[str, Any] | None = None,
    callbacks: Any = None,
    **flags: Any,
) -> tuple[dict[str, Any], Any]:
    base = small_module(namespace)

    def validation_step(self: Any, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.layer(batch).pow(2).mean())

    module = type("Module", (base,), {"validation_step": validation_step, **methods})()
    torch.manual_seed(1)
    made = callbacks(namespace) if callbacks else []
    trainer = quiet_trainer(namespace, callbacks=made, **{"max_epochs": 3, **flags})
    trainer.fit(module, data(rows, **(loader or {})), data(4))
    return module.state_dict(), trainer


def assert_same(methods: dict[str, Any], **kwargs: Any) -> None:
    ours, our_trainer = train(OURS, methods, **kwargs)
    theirs, their_trainer = train(REFERENCE, methods, **kwargs)
    for name, weights in theirs.items():
        assert torch.equal(ours[name], weights), name
    assert our_trainer.global_step == their_trainer.global_step
    assert our_trainer.current_epoch == their_trainer.current_epoch
    rates = [
        [g["lr"] for o in t.optimizers for g in o.param_groups if "lr" in g]
        for t in (our_trainer, their_trainer)
    ]
    assert rates[0] == rates[1]


pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("form", OPTIMIZERS)
def test_every_form_of_configure_optimizers(form: str) -> None:
    assert_same({"configure_optimizers": OPTIMIZERS[form]})


@pytest.mark.parametrize(
    "flags",
    [
        {"gradient_clip_val": 0.05},
        {"gradient_clip_val": 0.05, "gradient_clip_algorithm": "value"},
        {"accumulate_grad_batches": 2},
        {"accumulate_grad_batches": 4, "gradient_clip_val": 0.05},
        {"limit_train_batches": 0.5},
        {"max_steps": 5, "max_epochs": -1},
        {"min_epochs": 2, "max_epochs": 3},
        {"overfit_batches": 2},
        {"val_check_interval": 0.25},
        {"detect_anomaly": True},
        {"check_val_every_n_epoch": None, "val_check_interval": 3},
    ],
    ids=str,
)
def test_every_flag_of_training(flags: dict[str, Any]) -> None:
    assert_same({"configure_optimizers": lists}, **flags)


def test_shuffled_loader_draws_the_same_batches() -> None:
    assert_same({}, loader={"shuffle": True})


def test_skipped_losses_still_step() -> None:
    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        return None if batch_idx % 2 else self.layer(batch).pow(2).mean()

    assert_same({"training_step": training_step, "configure_optimizers": one})


def test_loss_in_a_mapping() -> None:
    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        return {"loss": self.layer(batch).pow(2).mean(), "other": batch}

    assert_same({"training_step": training_step})


def test_batch_only_training_step() -> None:
    def training_step(self: Any, batch: Any) -> Any:
        return self.layer(batch).pow(2).mean()

    assert_same({"training_step": training_step})


def test_manual_optimization_with_two_optimizers() -> None:
    def training_step(self: Any, batch: Any, batch_idx: int) -> None:
        first, second = self.optimizers()
        for optimizer, power in ((first, 2), (second, 4)):
            self.toggle_optimizer(optimizer)
            loss = self.layer(batch).pow(power).mean()
            optimizer.zero_grad()
            self.manual_backward(loss)
            self.clip_gradients(optimizer, 0.05, "norm")
            optimizer.step()
            self.untoggle_optimizer(optimizer)
        schedulers = self.lr_schedulers()
        schedulers.step()
        assert first.param_groups[0]["lr"] == schedulers.get_last_lr()[0]

    def configure_optimizers(self: Any) -> Any:
        self.automatic_optimization = False
        first = SGD([self.layer.weight], lr=0.1)
        second = Adam([self.layer.bias], lr=0.1)
        return [first, second], [StepLR(first, step_size=2)]

    methods = {
        "training_step": training_step,
        "configure_optimizers": configure_optimizers,
    }
    assert_same(methods)
    assert_same(methods, max_steps=6, max_epochs=-1)


def test_manual_optimization_with_a_closure() -> None:
    def training_step(self: Any, batch: Any, batch_idx: int) -> None:
        optimizer = self.optimizers()

        def closure() -> Any:
            loss = self.layer(batch).pow(2).mean()
            optimizer.zero_grad()
            self.manual_backward(loss)
            return loss

        optimizer.step(closure=closure)

    def configure_optimizers(self: Any) -> Any:
        self.automatic_optimization = False
        return SGD(self.parameters(), lr=0.1)

    assert_same(
        {"training_step": training_step, "configure_optimizers": configure_optimizers}
    )


def test_overridden_stepping() -> None:
    def optimizer_step(
        self: Any, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any
    ) -> None:
        if batch_idx % 2:
            optimizer.step(closure=optimizer_closure)
        else:
            optimizer_closure()

    def optimizer_zero_grad(self: Any, epoch: int, batch_idx: int, opt: Any) -> None:
        if batch_idx % 2 == 0:
            opt.zero_grad(set_to_none=False)

    def backward(self: Any, loss: Any, *args: Any, **kwargs: Any) -> None:
        (loss * 0.5).backward()

    assert_same(
        {
            "optimizer_step": optimizer_step,
            "optimizer_zero_grad": optimizer_zero_grad,
            "backward": backward,
            "configure_optimizers": lists,
        },
        gradient_clip_val=0.1,
    )


def test_own_clipping_and_scheduler_step() -> None:
    def configure_gradient_clipping(
        self: Any, optimizer: Any, gradient_clip_val: Any, gradient_clip_algorithm: Any
    ) -> None:
        torch.nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val / 2)

    def lr_scheduler_step(self: Any, scheduler: Any, metric: Any) -> None:
        scheduler.step()
        scheduler.step()

    assert_same(
        {
            "configure_gradient_clipping": configure_gradient_clipping,
            "lr_scheduler_step": lr_scheduler_step,
            "configure_optimizers": lists,
        },
        gradient_clip_val=0.2,
        gradient_clip_algorithm="norm",
    )


def test_early_stopping() -> None:
    def callbacks(namespace: str) -> list[Any]:
        module = importlib.import_module(f"{namespace}.pytorch.callbacks")
        return [module.EarlyStopping("val_loss", patience=1, min_delta=0.05)]

    assert_same({"configure_optimizers": lists}, callbacks=callbacks, max_epochs=50)


def test_request_to_stop_inside_an_epoch() -> None:
    def callbacks(namespace: str) -> list[Any]:
        base = importlib.import_module(namespace).Callback

        class Stop(base):  # type: ignore[misc,valid-type]
            def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
                trainer.should_stop = trainer.global_step >= 6

        return [Stop()]

    assert_same({}, callbacks=callbacks, max_epochs=50)
    assert_same({}, callbacks=callbacks, max_epochs=50, min_steps=10)
    assert_same({}, callbacks=callbacks, max_epochs=50, min_epochs=4)


def test_skipping_the_rest_of_an_epoch() -> None:
    def on_train_batch_start(self: Any, batch: Any, batch_idx: int) -> int | None:
        return -1 if batch_idx == 2 else None

    assert_same({"on_train_batch_start": on_train_batch_start})


def test_iterable_loader_without_length() -> None:
    class Stream(torch.utils.data.IterableDataset[torch.Tensor]):
        def __iter__(self) -> Any:
            generator = torch.Generator().manual_seed(3)
            return iter(torch.randn(7, 4, generator=generator))

    results = []
    for namespace in (OURS, REFERENCE):
        module = small_module(namespace)()
        trainer = quiet_trainer(namespace, max_epochs=2)
        loader = torch.utils.data.DataLoader(Stream(), batch_size=2)
        trainer.fit(module, loader, data(4))
        results.append((module.state_dict(), trainer.global_step))
    assert results[0][1] == results[1][1]
    assert torch.equal(results[0][0]["layer.weight"], results[1][0]["layer.weight"])


COMBINATIONS: dict[str, Any] = {
    "list": lambda L: [data(6), data(4, 1)],
    "dictionary": lambda L: {"a": data(6), "b": data(10)},
    "min_size": lambda L: L.pytorch.utilities.CombinedLoader(
        {"a": data(6), "b": [data(4), data(8)]}, "min_size"
    ),
    "max_size": lambda L: L.pytorch.utilities.CombinedLoader(
        [data(6), data(10)], "max_size"
    ),
}


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_several_training_loaders(combination: str) -> None:
    results = []
    for namespace in (OURS, REFERENCE):
        L = importlib.import_module(namespace)
        importlib.import_module(f"{namespace}.pytorch.utilities")
        shapes: list[Any] = []

        class Module(small_module(namespace)):  # type: ignore[misc]
            def training_step(self, batch: Any, batch_idx: int) -> Any:
                leaves = torch.utils._pytree.tree_leaves(batch)
                present = [leaf for leaf in leaves if leaf is not None]
                shapes.append([len(leaf) for leaf in present])  # noqa: B023
                return sum(self.layer(leaf).pow(2).mean() for leaf in present)

        module = Module()
        trainer = quiet_trainer(namespace, max_epochs=2)
        trainer.fit(module, COMBINATIONS[combination](L))
        results.append((module.state_dict(), shapes, trainer.num_training_batches))
    assert results[0][1:] == results[1][1:]
    assert torch.equal(results[0][0]["layer.weight"], results[1][0]["layer.weight"])


@pytest.mark.parametrize("mode", ["sequential", "max_size", "min_size"])
def test_several_validation_loaders(mode: str) -> None:
    results = []
    for namespace in (OURS, REFERENCE):
        utilities = importlib.import_module(f"{namespace}.pytorch.utilities")
        seen: list[Any] = []

        class Module(small_module(namespace)):  # type: ignore[misc]
            def validation_step(
                self, batch: Any, batch_idx: int, dataloader_idx: int = 0
            ) -> None:
                leaves = torch.utils._pytree.tree_leaves(batch)
                sums = [float(x.sum()) for x in leaves if x is not None]
                seen.append((batch_idx, dataloader_idx, sums))  # noqa: B023
                self.log("total", sum(sums))

        loaders = utilities.CombinedLoader([data(6), data(4)], mode)
        outcome = quiet_trainer(namespace).validate(Module(), loaders, verbose=False)
        results.append((seen, outcome))
    assert results[0][0] == results[1][0]
    for mine, other in zip(results[0][1], results[1][1], strict=True):
        assert mine == pytest.approx(other)


def test_loaders_are_asked_for_anew() -> None:
    counts = []
    for namespace in (OURS, REFERENCE):
        asked: list[str] = []

        class Module(small_module(namespace)):  # type: ignore[misc]
            def train_dataloader(self) -> Any:
                asked.append(f"train {self.current_epoch}")  # noqa: B023
                return data(4)

            def val_dataloader(self) -> Any:
                asked.append(f"val {self.current_epoch}")  # noqa: B023
                return data(4)

        quiet_trainer(namespace, max_epochs=5, reload_dataloaders_every_n_epochs=2).fit(
            Module()
        )
        counts.append(asked)
    ours, theirs = (sorted(asked) for asked in counts)
    assert ours == theirs


def test_barebones_trains_the_same() -> None:
    results = []
    for namespace in (OURS, REFERENCE):
        L = importlib.import_module(namespace)
        module = small_module(namespace)()
        trainer = L.Trainer(barebones=True, max_epochs=2, accelerator="cpu")
        trainer.fit(module, data(), data(4))
        results.append(module.state_dict()["layer.weight"])
    assert torch.equal(*results)


def test_max_time_ends_the_fit() -> None:
    for namespace in (OURS, REFERENCE):
        trainer = quiet_trainer(namespace, max_epochs=-1, max_time={"seconds": 0.2})
        trainer.fit(small_module(namespace)(), data())
        assert trainer.global_step > 0


@pytest.mark.parametrize("order", [1, 2.0, "inf"])
def test_gradient_norms(order: Any) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1))
    module(torch.ones(4, 3)).sum().backward()
    ours, theirs = (
        importlib.import_module(f"{namespace}.pytorch.utilities").grad_norm(
            module, order
        )
        for namespace in (OURS, REFERENCE)
    )
    assert ours == theirs


@pytest.mark.parametrize("namespace", [OURS, REFERENCE])
def test_settings_of_the_module_in_its_class(namespace: str) -> None:
    class Manual(small_module(namespace)):  # type: ignore[misc]
        automatic_optimization = False
        example_input_array = torch.ones(2, 4)

        def training_step(self, batch: Any, batch_idx: int) -> None:
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(self.layer(batch).pow(2).mean())
            optimizer.step()

    module = Manual()
    trainer = quiet_trainer(namespace, max_epochs=1)
    trainer.fit(module, data())
    assert trainer.global_step == 4
    assert module.example_input_array.shape == (2, 4)
