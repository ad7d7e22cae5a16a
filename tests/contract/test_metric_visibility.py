"""When logged values can be read, by whom, and where loggers are sent them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest
from recording import OURS, REFERENCE, data, memory_logger, quiet_trainer, small_module

HOOKS = [
    f"on_{stage}_{part}"
    for stage in ("validation", "test")
    for part in ("start", "epoch_start", "batch_start", "batch_end", "epoch_end", "end")
]
HOOKS += ["on_train_epoch_start", "on_train_batch_end", "on_train_epoch_end"]

pytestmark = pytest.mark.filterwarnings("ignore")


def logging_module(namespace: str) -> Any:
    class Module(small_module(namespace)):  # type: ignore[misc]
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = super().training_step(batch, batch_idx)
            self.log("train", loss, on_epoch=True, prog_bar=True)
            return loss

        def on_validation_start(self) -> None:
            self.log("start", 1.0)

        def validation_step(self, batch: Any, batch_idx: int, loader: int = 0) -> None:
            self.log("epoch", float(batch_idx))
            self.log("both", float(batch_idx), on_step=True, on_epoch=True)
            self.log("step", 8.0 + batch_idx, on_step=True, prog_bar=True)

        def test_step(
            self, batch: Any, batch_idx: int, dataloader_idx: int = 0
        ) -> None:
            self.log("epoch", float(batch_idx), prog_bar=True)
            self.log("one", float(batch_idx), on_step=True)
            self.log("hidden", float(batch_idx), logger=False)

    return Module()


def keeping(namespace: str, kept: list[Any]) -> Any:
    """Return a callback that keeps every metric to be seen in every hook."""

    def hook(name: str) -> Any:
        def seen(callback: Any, trainer: Any, *args: Any) -> None:
            metrics = (
                trainer.callback_metrics,
                trainer.logged_metrics,
                trainer.progress_bar_metrics,
            )
            values = [{k: float(v) for k, v in each.items()} for each in metrics]
            kept.append((name, values))

        return seen

    base = importlib.import_module(namespace).Callback
    return type("Keeping", (base,), {name: hook(name) for name in HOOKS})()


def assert_same(story: Callable[[str], Any]) -> None:
    ours, theirs = story(OURS), story(REFERENCE)
    assert ours == theirs
    assert ours


@pytest.mark.parametrize("loaders", [1, 2])
def test_metrics_are_to_be_seen_in_the_same_hooks(loaders: int) -> None:
    def story(namespace: str) -> Any:
        kept: list[Any] = []
        trainer = quiet_trainer(
            namespace,
            max_epochs=2,
            num_sanity_val_steps=0,
            callbacks=[keeping(namespace, kept)],
        )
        module = logging_module(namespace)
        trainer.fit(module, data(4), data(4))
        trainer.test(module, [data(4)] * loaders, verbose=False)
        return kept

    assert_same(story)


def test_reading_one_kind_of_metrics_leaves_the_others() -> None:
    def story(namespace: str) -> Any:
        kinds = ("callback_metrics", "logged_metrics", "progress_bar_metrics")
        seen: list[Any] = []

        class Module(small_module(namespace)):  # type: ignore[misc]
            def on_train_start(self) -> None:
                self.log("x", 1.0, prog_bar=True)

            def on_train_epoch_start(self) -> None:
                getattr(self.trainer, self.read)  # before the batches hide it

            def on_train_batch_start(self, *args: Any) -> None:
                seen.append([sorted(getattr(self.trainer, kind)) for kind in kinds])

        for Module.read in kinds:
            trainer = quiet_trainer(namespace, max_epochs=1, limit_train_batches=1)
            trainer.fit(Module(), data())
        return seen

    assert_same(story)
    assert story(OURS) == [[["x"], [], []], [[], ["x"], []], [[], [], ["x"]]]


def rows(namespace: str, story: Callable[[Any, Any], Any], **flags: Any) -> Any:
    logger = memory_logger(namespace)
    trainer = quiet_trainer(namespace, logger=logger, **{"max_epochs": 2, **flags})
    story(trainer, logging_module(namespace))
    return logger.rows


def test_batches_of_several_loaders_are_sent_apart() -> None:
    def story(trainer: Any, module: Any) -> None:
        trainer.test(module, [data(4), data(6)], verbose=False)

    assert_same(lambda namespace: rows(namespace, story))


def test_value_named_step_takes_the_place_of_the_axis() -> None:
    def story(trainer: Any, module: Any) -> None:
        module.on_train_batch_end = lambda *args: module.log("step", 70.0)
        module.on_validation_batch_end = lambda *args: module.log(
            "step", 80.0, on_step=True, on_epoch=False
        )
        trainer.fit(module, data(4), data(4))

    sent = rows(OURS, story, log_every_n_steps=1)
    assert sent == rows(REFERENCE, story, log_every_n_steps=1)
    assert [values for step, values in sent if step == 70]
    assert not any("epoch" in values for step, values in sent if step == 70)


def test_axis_of_evaluated_batches_starts_anew_in_each_run() -> None:
    def story(trainer: Any, module: Any) -> None:
        trainer.fit(module, data(4), data(4))
        trainer.validate(module, data(4), verbose=False)
        trainer.validate(module, data(4), verbose=False)

    assert_same(lambda namespace: rows(namespace, story))
    assert_same(
        lambda namespace: rows(namespace, story, reload_dataloaders_every_n_epochs=1)
    )


def test_result_leaves_out_what_loggers_are_not_sent() -> None:
    def story(namespace: str) -> Any:
        trainer = quiet_trainer(namespace)
        return trainer.test(logging_module(namespace), data(4), verbose=False)

    assert_same(story)
    assert "hidden" not in story(OURS)[0]


def test_steps_are_sent_once_a_stop_is_asked_for() -> None:
    def story(namespace: str) -> Any:
        def stop(callback: Any, trainer: Any, *args: Any) -> None:
            trainer.should_stop = trainer.global_step >= 2

        base = importlib.import_module(namespace).Callback
        stopper = type("Stopper", (base,), {"on_train_batch_end": stop})()
        return rows(
            namespace,
            lambda trainer, module: trainer.fit(module, data()),
            callbacks=[stopper],
            min_steps=7,
        )

    assert_same(story)


def test_one_name_for_several_loaders_is_refused() -> None:
    for namespace in (OURS, REFERENCE):

        class Module(small_module(namespace)):  # type: ignore[misc]
            def test_step(
                self, batch: Any, batch_idx: int, dataloader_idx: int
            ) -> None:
                self.log("mixed", 1.0, add_dataloader_idx=False)

        exceptions = importlib.import_module(
            f"{namespace}.pytorch.utilities.exceptions"
        )
        with pytest.raises(exceptions.MisconfigurationException, match="mixed"):
            quiet_trainer(namespace).test(Module(), [data(4), data(4)], verbose=False)


def test_learning_rates_are_sent_once_a_stop_is_asked_for() -> None:
    def story(namespace: str) -> Any:
        callbacks = importlib.import_module(f"{namespace}.pytorch.callbacks")

        def stop(trainer: Any, module: Any) -> None:
            trainer.should_stop = True

        logger = memory_logger(namespace)
        trainer = quiet_trainer(
            namespace,
            logger=logger,
            callbacks=[
                callbacks.LearningRateMonitor("step"),
                callbacks.LambdaCallback(on_train_epoch_start=stop),
            ],
            log_every_n_steps=50,
            min_epochs=2,
        )
        trainer.fit(small_module(namespace)(), data())
        return logger.rows

    assert_same(story)
