"""What the loops do at the edges: refused batches, stops, limits of 0, loaders asked for."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from recording import (
    OURS,
    REFERENCE,
    callback_hooks,
    data,
    quiet_trainer,
    recording,
    small_module,
)
from torch.optim import SGD
from torch.optim.lr_scheduler import ExponentialLR, ReduceLROnPlateau

BOTH = (OURS, REFERENCE)

pytestmark = pytest.mark.filterwarnings("ignore")


class Stream:
    """Three batches without a length."""

    def __iter__(self) -> Any:
        return iter([torch.ones(2, 4)] * 3)


def with_hooks(namespace: str, **hooks: Any) -> Any:
    """Return a callback of either package with these hooks."""
    base = importlib.import_module(namespace).Callback
    return type("Drawn", (base,), hooks)()


def refusing(namespace: str) -> Any:
    """Return a module that refuses each epoch's third batch and schedules in three ways."""

    class Module(small_module(namespace)):  # type: ignore[misc]
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.log("loss", loss := super().training_step(batch, batch_idx))
            return loss

        def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
            return -1 if batch_idx == 2 else None

        def configure_optimizers(self) -> Any:
            optimizer = SGD(self.parameters(), lr=0.1)
            plateau = ReduceLROnPlateau(optimizer, patience=0, threshold=10.0)
            return [optimizer], [
                {"scheduler": ExponentialLR(optimizer, 0.5), "interval": "step"},
                {"scheduler": ExponentialLR(optimizer, 0.9), "interval": "epoch"},
                {"scheduler": plateau, "monitor": "loss"},
            ]

    return Module()


def test_refused_batch_counts_as_the_last_for_schedulers() -> None:
    seen: dict[str, list[Any]] = {namespace: [] for namespace in BOTH}
    for namespace in BOTH:

        def look(
            callback: Any, trainer: Any, *args: Any, namespace: str = namespace
        ) -> None:
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            seen[namespace].append((trainer.is_last_batch, rate))

        callback = with_hooks(namespace, on_train_epoch_end=look, on_train_end=look)
        trainer = quiet_trainer(namespace, max_epochs=3, callbacks=[callback])
        trainer.fit(refusing(namespace), data())
    assert seen[OURS] == seen[REFERENCE]
    assert len(set(seen[OURS])) == 4


def test_refused_batch_counts_for_validation_across_epochs() -> None:
    seen: dict[str, list[int]] = {namespace: [] for namespace in BOTH}
    for namespace in BOTH:

        def look(
            callback: Any, trainer: Any, *args: Any, namespace: str = namespace
        ) -> None:
            seen[namespace].append(trainer.global_step)

        trainer = quiet_trainer(
            namespace,
            max_epochs=6,
            num_sanity_val_steps=0,
            val_check_interval=4,
            check_val_every_n_epoch=None,
            callbacks=[with_hooks(namespace, on_validation_start=look)],
        )
        trainer.fit(refusing(namespace), data(), data(4))
    assert seen[OURS] == seen[REFERENCE] != []


def test_stop_asked_for_at_an_epochs_start_reads_no_batch() -> None:
    ends = []
    for namespace in BOTH:

        def stop(callback: Any, trainer: Any, *args: Any) -> None:
            trainer.should_stop = trainer.current_epoch == 1

        callback = with_hooks(namespace, on_train_epoch_start=stop)
        trainer = quiet_trainer(namespace, max_epochs=4, callbacks=[callback])
        trainer.fit(small_module(namespace)(), data())
        ends.append((trainer.global_step, trainer.current_epoch))
    assert ends[0] == ends[1] == (4, 2)


def test_gradients_are_gone_before_an_evaluation() -> None:
    for namespace in BOTH:
        module = small_module(namespace)()
        for run in ("validate", "test", "predict"):
            module.layer(torch.ones(1, 4)).backward()
            getattr(quiet_trainer(namespace), run)(module, data(4))
            assert module.layer.weight.grad is None, (namespace, run)


def test_sanity_check_is_an_evaluation() -> None:
    seen = []
    for namespace in BOTH:

        def look(callback: Any, trainer: Any, *args: Any) -> None:
            seen.append(
                (trainer.evaluating, trainer.validating, trainer.sanity_checking)
            )

        callback = with_hooks(namespace, on_validation_start=look)
        trainer = quiet_trainer(namespace, max_epochs=1, callbacks=[callback])
        trainer.fit(small_module(namespace)(), data(), data(4))
    assert seen == [(True, False, True), (True, True, False)] * 2


LOADERS = ["train_dataloader", "val_dataloader", "test_dataloader"]


def asking(namespace: str, log: list[str]) -> Any:
    """Return a module that notes when its loaders are asked for."""

    def asked(name: str) -> Any:
        def hook(module: Any) -> Any:
            log.append(name)
            return data(4)

        return hook

    members = {name: asked(name) for name in LOADERS}
    members["on_validation_model_zero_grad"] = lambda module: log.append("zero_grad")
    return type("Asking", (small_module(namespace),), members)()


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"num_sanity_val_steps": 0},
        {"num_sanity_val_steps": 0, "check_val_every_n_epoch": 2},
        {"reload_dataloaders_every_n_epochs": 1},
        {"limit_val_batches": 0},
    ],
    ids=str,
)
def test_loaders_are_asked_for_at_the_same_moments(flags: dict[str, Any]) -> None:
    logs = []
    for namespace in BOTH:
        log: list[str] = []
        hooks = [h for h in callback_hooks(namespace) if "batch" not in h]
        base = importlib.import_module(namespace).Callback
        callback = recording(base, log, "callback", hooks)()
        module = asking(namespace, log)
        trainer = quiet_trainer(
            namespace, **{"max_epochs": 2, "callbacks": [callback], **flags}
        )
        trainer.fit(module)
        log.append("validate")
        second = quiet_trainer(
            namespace, **{"max_epochs": 2, "callbacks": [callback], **flags}
        )
        second.validate(module, verbose=False)
        logs.append(log)
    assert logs[0] == logs[1]


def test_counting_batches_asks_for_no_loader_again() -> None:
    for namespace in BOTH:
        log: list[str] = []

        def count(callback: Any, trainer: Any, *args: Any) -> None:
            assert trainer.num_val_batches == [2]

        trainer = quiet_trainer(
            namespace,
            max_epochs=3,
            reload_dataloaders_every_n_epochs=1,
            callbacks=[with_hooks(namespace, on_train_epoch_start=count)],
        )
        trainer.fit(asking(namespace, log))
        log = [name for name in log if name != "zero_grad"]
        first = ["val_dataloader", "train_dataloader"]
        again = ["train_dataloader", "val_dataloader"]
        assert log == first + again * 2, namespace


@pytest.mark.parametrize("run", ["validate", "test"])
def test_evaluation_with_a_limit_of_0_does_nothing(run: str) -> None:
    for namespace in BOTH:
        log: list[str] = []
        stage = "val" if run == "validate" else "test"
        trainer = quiet_trainer(namespace, **{f"limit_{stage}_batches": 0})
        assert getattr(trainer, run)(asking(namespace, log), verbose=False) == []
        assert log == []


def test_prediction_with_a_limit_of_0_is_none() -> None:
    for namespace in BOTH:
        trainer = quiet_trainer(namespace, limit_predict_batches=0)
        assert trainer.predict(small_module(namespace)(), data(4)) is None


@pytest.mark.parametrize("interval", [2, 0.5, 1.0])
def test_interval_of_validation_is_known_without_any(interval: float) -> None:
    found = []
    for namespace in BOTH:
        trainer = quiet_trainer(namespace, max_epochs=1, val_check_interval=interval)
        trainer.fit(small_module(namespace)(), data())
        found.append((trainer.val_check_batch, trainer.num_val_batches))
    assert found[0] == found[1]


@pytest.mark.parametrize("limit", [2, 5, 1.0])
def test_interval_of_validation_of_a_stream_is_its_limit(limit: float) -> None:
    found = []
    for namespace in BOTH:
        trainer = quiet_trainer(namespace, max_epochs=1, limit_train_batches=limit)
        before = trainer.val_check_batch
        trainer.fit(small_module(namespace)(), Stream(), data(4))
        found.append((before, trainer.val_check_batch))
    assert found[0] == found[1]


@pytest.mark.parametrize("mode", ["sequential", "min_size", "max_size_cycle"])
def test_batches_are_counted_by_loader(mode: str) -> None:
    found = []
    for namespace in BOTH:
        utilities = importlib.import_module(f"{namespace}.pytorch.utilities")
        module = small_module(namespace)()
        module.validation_step = lambda batch, batch_idx, dataloader_idx=0: None
        trainer = quiet_trainer(namespace, max_epochs=1, limit_val_batches=2)
        loaders = utilities.CombinedLoader([data(6), data(2)], mode)
        trainer.fit(module, data(), loaders)
        found.append((trainer.num_val_batches, trainer.num_sanity_val_batches))
    assert found[0] == found[1] == ([2, 1], [2, 1])


def test_overfitting_shuffles_nothing_but_evaluations_of_their_own() -> None:
    order = []
    for namespace in BOTH:
        seen: list[Any] = []

        class Module(small_module(namespace)):  # type: ignore[misc]
            def training_step(self, batch: Any, batch_idx: int) -> Any:
                seen.extend(float(part.sum()) for part in batch)  # noqa: B023
                return self.layer(batch[0]).mean()

            def test_step(self, batch: Any, batch_idx: int) -> None:
                seen.append(float(batch.sum()))  # noqa: B023

        trainer = quiet_trainer(namespace, max_epochs=2, overfit_batches=2)
        torch.manual_seed(3)
        trainer.fit(Module(), [data(shuffle=True), data(6, shuffle=True)])
        torch.manual_seed(3)
        trainer.test(Module(), data(shuffle=True), verbose=False)
        order.append(seen)
    assert order[0] == order[1]
    assert order[0][:4] == order[0][4:8]


@pytest.mark.parametrize(
    "minima",
    [{"min_steps": 2}, {"min_steps": 6}, {"min_epochs": 2}, {"min_epochs": 0}, {}],
    ids=str,
)
def test_request_to_stop_waits_for_the_minima(minima: dict[str, int]) -> None:
    ends = []
    for namespace in BOTH:

        def stop(callback: Any, trainer: Any, *args: Any) -> None:
            trainer.should_stop = True

        trainer = quiet_trainer(
            namespace,
            max_epochs=5,
            callbacks=[with_hooks(namespace, on_train_batch_end=stop)],
            **minima,
        )
        trainer.fit(small_module(namespace)(), data())
        ends.append((trainer.global_step, trainer.current_epoch, trainer.min_epochs))
    assert ends[0] == ends[1]


def test_only_the_modules_answer_ends_an_epoch() -> None:
    steps = []
    for namespace in BOTH:

        def answer(callback: Any, trainer: Any, *args: Any) -> int:
            return -1

        hooks = with_hooks(namespace, on_train_batch_start=answer)
        trainer = quiet_trainer(namespace, max_epochs=1, callbacks=[hooks])
        trainer.fit(small_module(namespace)(), data())
        steps.append(trainer.global_step)
    assert steps == [4, 4]


def test_fit_without_training_batches_asks_for_no_training_loader() -> None:
    for namespace in BOTH:
        log: list[str] = []
        trainer = quiet_trainer(namespace, limit_train_batches=0, max_epochs=1)
        trainer.fit(asking(namespace, log))
        assert log == ["val_dataloader"], namespace
