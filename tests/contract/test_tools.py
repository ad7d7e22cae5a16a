"""Finders, profilers and summaries of both packages, used as their users do."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from recording import OURS, REFERENCE, callbacks_of, data, quiet_trainer, small_module

pytestmark = pytest.mark.filterwarnings("ignore")


def tunable(namespace: str) -> Any:
    class Tunable(small_module(namespace)):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.rate = 0.1
            self.save_hyperparameters({"rows": 2})
            self.sizes: list[int] = []

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.sizes.append(len(batch))
            if len(batch) > 20:
                raise RuntimeError("CUDA out of memory.")
            return super().training_step(batch, batch_idx)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=self.rate)

        def train_dataloader(self) -> Any:
            return data(128, self.hparams.rows)

        def val_dataloader(self) -> Any:
            return data(4)

    return Tunable()


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"min_lr": 1e-5, "max_lr": 0.5, "num_training_steps": 30, "mode": "linear"},
        {"early_stop_threshold": None, "num_training_steps": 20},
        {"update_attr": False},
    ],
    ids=str,
)
def test_learning_rate_finder(arguments: dict[str, Any], same: Any) -> None:
    def scenario(namespace: str, root: Path) -> Any:
        finder = callbacks_of(namespace).LearningRateFinder(
            **arguments, attr_name="rate"
        )
        module = tunable(namespace)
        trainer = quiet_trainer(
            namespace, callbacks=[finder], max_epochs=1, default_root_dir=root
        )
        trainer.fit(module)
        found = finder.optimal_lr
        suggestions = [found.suggestion(), found.suggestion(skip_begin=3, skip_end=2)]
        used = trainer.optimizers[0].param_groups[0]["lr"]
        attributes = found.mode, found.lr_min, found.lr_max, found.num_training
        return (
            *(suggestions, found.results, attributes, module.rate, used),
            [trainer.global_step, module.layer.weight.tolist(), list(root.iterdir())],
        )

    same(scenario)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"mode": "binsearch"},
        {"mode": "binsearch", "margin": 0.5, "max_val": 64},
        {"steps_per_trial": 1, "init_val": 4, "max_trials": 2},
    ],
    ids=str,
)
def test_batch_size_finder(arguments: dict[str, Any], same: Any) -> None:
    def scenario(namespace: str, root: Path) -> Any:
        finder = callbacks_of(namespace).BatchSizeFinder(
            **arguments, batch_arg_name="rows"
        )
        module = tunable(namespace)
        trainer = quiet_trainer(
            namespace, callbacks=[finder], max_epochs=1, default_root_dir=root
        )
        trainer.fit(module)
        size = module.hparams.rows
        return finder.optimal_batch_size, size, module.sizes[-1], trainer.global_step

    same(scenario)


def test_finders_of_the_users_own(same: Any) -> None:
    def scenario(namespace: str, root: Path) -> Any:
        callbacks, rates = callbacks_of(namespace), []

        class Again(callbacks.LearningRateFinder):  # type: ignore[misc,name-defined]
            def on_fit_start(self, *args: Any) -> None:
                return

            def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
                if trainer.current_epoch in (0, 2):
                    self.lr_find(trainer, pl_module)
                    rates.append(pl_module.rate)

        finder = Again(num_training_steps=15, attr_name="rate")
        trainer = quiet_trainer(
            namespace, callbacks=[finder], max_epochs=3, default_root_dir=root
        )
        trainer.fit(tunable(namespace))
        return rates, trainer.global_step, list(root.iterdir())

    same(scenario)


@pytest.mark.parametrize("names", [("rate",), ("nobody",), ()], ids=str)
def test_attribute_of_the_rate(names: tuple[str, ...], same: Any) -> None:
    def scenario(namespace: str, root: Path) -> Any:
        tuner = importlib.import_module(f"{namespace}.pytorch.tuner").Tuner
        trainer = quiet_trainer(namespace, max_epochs=1, default_root_dir=root)
        module = tunable(namespace)
        arguments = {"attr_name": names[0]} if names else {}
        try:
            found = tuner(trainer).lr_find(module, num_training=12, **arguments)
        except Exception:
            return "refused", module.rate
        return found.suggestion(), module.rate

    same(scenario)


def test_profiler_of_the_users_own(same: Any) -> None:
    def scenario(namespace: str, root: Path) -> Any:
        base = importlib.import_module(f"{namespace}.pytorch.profilers").Profiler
        calls: list[Any] = []

        class Own(base):  # type: ignore[misc,valid-type]
            def start(self, action_name: str) -> None:
                if action_name == "own part" or "on_train_epoch_end" in action_name:
                    calls.append(("start", action_name))

            def stop(self, action_name: str) -> None:
                if action_name == "own part":
                    calls.append(("stop", action_name))

            def setup(self, *args: Any, **kwargs: Any) -> None:
                super().setup(*args, **kwargs)
                calls.append("setup")

            def summary(self) -> str:
                calls.append("summary")
                return "a summary"

            def teardown(self, stage: Any) -> None:
                calls.append("teardown")

        class Module(small_module(namespace)):  # type: ignore[misc]
            def on_train_epoch_end(self) -> None:
                with self.trainer.profiler.profile("own part"):
                    pass

        Module.__name__ = Module.__qualname__ = "Module"
        profiler = Own(dirpath=root, filename="report")
        trainer = quiet_trainer(namespace, profiler=profiler, max_epochs=2)
        trainer.fit(Module(), data())
        files = {path.name: path.read_text() for path in root.iterdir()}
        return list(dict.fromkeys(map(str, calls))), files

    assert "a summary" in same(scenario)[1].values()


@pytest.mark.parametrize("name", ["SimpleProfiler", "AdvancedProfiler"])
def test_files_of_profilers(name: str, same: Any) -> None:
    def scenario(namespace: str, root: Path) -> Any:
        profilers = importlib.import_module(f"{namespace}.pytorch.profilers")
        profiler = getattr(profilers, name)(dirpath=root, filename="report")
        trainer = quiet_trainer(namespace, profiler=profiler, max_epochs=1)
        module = small_module(namespace)()
        trainer.fit(module, data(), data(4))
        trainer.test(module, data(4), verbose=False)
        files = sorted(path.name.split(".")[0] for path in root.iterdir())
        texts = [path.read_text() for path in sorted(root.glob("*.txt"))]
        return files, [text.split("\n")[0].strip() for text in texts]

    same(scenario)


def layers(namespace: str) -> Any:
    class Layers(small_module(namespace)):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.body = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU())
            self.shared = self.body[0]
            self.frozen = torch.nn.Linear(2, 2).requires_grad_(False).eval()
            self.own = torch.nn.Parameter(torch.zeros(3))

    return Layers()


@pytest.mark.parametrize("depth", [1, 2, -1])
def test_numbers_of_model_summaries(depth: int) -> None:
    found: list[Any] = []
    for namespace in (OURS, REFERENCE):
        package = importlib.import_module(
            f"{namespace}.pytorch.utilities.model_summary"
        )
        summary = package.summarize(layers(namespace), max_depth=depth)
        found.append(
            [
                *(summary.total_parameters, summary.trainable_parameters),
                pytest.approx(summary.model_size, rel=1e-6),
            ]
        )
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", ["ModelSummary", "RichModelSummary"])
def test_summary_is_shown_at_the_start(
    kind: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    for namespace in (OURS, REFERENCE):
        callback = getattr(callbacks_of(namespace), kind)(max_depth=2)
        trainer = quiet_trainer(
            namespace, callbacks=[callback], max_epochs=1, enable_model_summary=True
        )
        trainer.fit(layers(namespace), data())
        shown = capsys.readouterr()
        text = shown.out + shown.err + caplog.text
        caplog.clear()
        for words in ("body.0", "Linear", "frozen", "ReLU", "train", "eval"):
            assert words in text, (namespace, words)


@pytest.mark.parametrize("kind", ["ModelSummary", "RichModelSummary"])
def test_summary_without_depth_is_none(
    kind: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    for namespace in (OURS, REFERENCE):
        callback = getattr(callbacks_of(namespace), kind)(max_depth=0)
        trainer = quiet_trainer(
            namespace, callbacks=[callback], max_epochs=1, enable_model_summary=True
        )
        trainer.fit(layers(namespace), data())
        shown = capsys.readouterr()
        assert "arams" not in shown.out + shown.err + caplog.text


def test_each_checkpoint_callback_type_is_a_callback() -> None:
    for namespace in (OURS, REFERENCE):
        callbacks = callbacks_of(namespace)
        for name in ("ModelCheckpoint", "OnExceptionCheckpoint"):
            assert issubclass(getattr(callbacks, name), callbacks.Checkpoint)
            assert issubclass(callbacks.Checkpoint, callbacks.Callback)
