"""Objects of torchmetrics given to `self.log`, on both packages."""

from __future__ import annotations

from typing import Any

import pytest
from recording import OURS, REFERENCE, data, memory_logger, quiet_trainer, small_module

torchmetrics = pytest.importorskip("torchmetrics")


def run(namespace: str) -> tuple[Any, Any, Any]:
    class Module(small_module(namespace)):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.seen = torchmetrics.MeanMetric()
            self.largest = torchmetrics.MaxMetric()
            self.val = torchmetrics.MeanMetric()
            self.both = torchmetrics.MetricCollection(
                {"low": torchmetrics.MinMetric(), "high": torchmetrics.MaxMetric()}
            )

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = self.layer(batch).pow(2).mean()
            self.seen(loss.detach())
            self.log("seen", self.seen, on_step=True, on_epoch=True)
            self.largest.update(loss.detach())
            self.log("largest", self.largest, on_step=False, on_epoch=True)
            return loss

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            value = self.layer(batch).mean()
            self.val.update(value)
            self.log("val", self.val)
            self.both.update(value)
            self.log_dict(self.both)

    logger = memory_logger(namespace)
    trainer = quiet_trainer(namespace, logger=logger, max_epochs=2, log_every_n_steps=2)
    trainer.fit(Module(), data(9, 2), data(5, 2))
    metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
    return logger.rows, metrics, trainer.lightning_module.seen.update_count


@pytest.mark.filterwarnings("ignore")
def test_metric_objects_are_reported_and_reset_as_in_the_reference() -> None:
    ours, theirs = run(OURS), run(REFERENCE)
    assert [step for step, _ in ours[0]] == [step for step, _ in theirs[0]]
    for (_, mine), (_, other) in zip(ours[0], theirs[0], strict=True):
        assert mine == pytest.approx(other)
    assert ours[1] == pytest.approx(theirs[1])
    assert ours[2] == theirs[2] == 0


SEEN_AT = (
    "on_validation_start",
    "on_validation_epoch_end",
    "on_validation_end",
    "on_train_epoch_start",
    "on_train_epoch_end",
    "on_train_end",
    "teardown",
)


def states_in_several_runs(namespace: str) -> list[Any]:
    """Return what is in two metric objects at hooks of a fit and two validations."""
    seen: list[Any] = []

    class Module(small_module(namespace)):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.read, self.evaluated = (
                torchmetrics.SumMetric(),
                torchmetrics.SumMetric(),
            )

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.read(float(len(batch)))
            self.log("read", self.read, on_epoch=True, on_step=False)
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.evaluated(float(len(batch)))
            self.log("evaluated", self.evaluated)

    def noted(hook: str) -> Any:
        def note(self: Any, *args: Any, **kwargs: Any) -> None:
            values = float(self.read.sum_value), float(self.evaluated.sum_value)
            seen.append((hook, *values))

        return note

    for hook in SEEN_AT:
        setattr(Module, hook, noted(hook))
    module, trainer = Module(), quiet_trainer(namespace, logger=False, max_epochs=2)
    trainer.fit(module, data(9, 2), data(5, 2))
    for _ in range(2):
        trainer.validate(module, data(5, 2), verbose=False)
        seen.append(float(trainer.callback_metrics["evaluated"]))
    return seen


@pytest.mark.filterwarnings("ignore")
def test_metric_objects_begin_anew_in_the_next_run() -> None:
    ours, theirs = states_in_several_runs(OURS), states_in_several_runs(REFERENCE)
    assert ours == theirs
    assert ours[-1] == 5.0
