"""Progress bars that users write on those of either package."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from recording import OURS, REFERENCE, callbacks_of, data, quiet_trainer
from test_callbacks import build, sgd

pytestmark = pytest.mark.filterwarnings("ignore")


def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
    loss = self(batch).pow(2).mean()
    self.log("loss", loss, prog_bar=True)
    self.log("hidden", loss)
    return loss


def fitted(namespace: str, bar: Any, **flags: Any) -> Any:
    trainer = quiet_trainer(
        namespace,
        **{"max_epochs": 2, "callbacks": [bar], "enable_progress_bar": True, **flags},
    )
    module = build(namespace, training_step=training_step, configure_optimizers=sgd)
    trainer.fit(module, data(12, 2), data(4))
    return trainer


def test_bar_made_from_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    found = []
    for namespace in (OURS, REFERENCE):
        seen: list[Any] = []

        class Percent(callbacks_of(namespace).ProgressBar):  # type: ignore[misc]
            seen: list[Any]

            def __init__(self) -> None:
                super().__init__()
                self.enable = True

            def disable(self) -> None:
                self.enable = False

            def on_train_batch_end(
                self,
                trainer: Any,
                module: Any,
                outputs: Any,
                batch: Any,
                batch_idx: int,
            ) -> None:
                super().on_train_batch_end(trainer, module, outputs, batch, batch_idx)
                percent = batch_idx / self.total_train_batches * 100
                sys.stdout.write(f"{percent:.01f} percent complete {self.enable}\r")
                items = self.get_metrics(trainer, module)
                self.seen.append((sorted(items), self.total_val_batches))

            def on_validation_batch_start(
                self, trainer: Any, module: Any, batch: Any, i: int, loader: int = 0
            ) -> None:
                if self.has_dataloader_changed(loader):
                    self.seen.append(self.total_val_batches_current_dataloader)

        bar = Percent()
        bar.seen = seen
        fitted(namespace, bar)
        found.append((seen, capsys.readouterr().out))
    assert found[0] == found[1]
    assert "83.3 percent complete True" in found[0][1]


def test_overridden_tqdm_bars(tmp_path: Path) -> None:
    found = []
    for namespace in (OURS, REFERENCE):
        calls: list[Any] = []

        class Own(callbacks_of(namespace).TQDMProgressBar):  # type: ignore[misc]
            calls: list[Any]

            def init_sanity_tqdm(self) -> Any:
                self.calls.append("sanity")
                return super().init_sanity_tqdm()

            def init_train_tqdm(self) -> Any:
                bar = super().init_train_tqdm()
                bar.set_description("own")
                self.calls.append(("train", bar.pos, bar.leave))
                return bar

            def init_validation_tqdm(self) -> Any:
                bar = super().init_validation_tqdm()
                self.calls.append(("validation", bar.leave, bar.desc.strip(": ")))
                return bar

            def on_train_start(self, *args: Any) -> None:
                super().on_train_start(*args)
                self.train_progress_bar = self.init_train_tqdm()

            def get_metrics(self, trainer: Any, pl_module: Any) -> Any:
                items = super().get_metrics(trainer, pl_module)
                items["version"] = items.pop("v_num")
                return items

            def on_train_epoch_end(self, *args: Any) -> None:
                super().on_train_epoch_end(*args)
                bar = self.train_progress_bar
                self.calls.append((bar.n, bar.total, bar.postfix.split("=")[0]))

        bar = Own(refresh_rate=2, process_position=1)
        bar.calls = calls
        loggers = importlib.import_module(f"{namespace}.pytorch.loggers")
        fitted(namespace, bar, logger=loggers.CSVLogger(tmp_path / namespace))
        attributes = bar.refresh_rate, bar.process_position, bar.is_disabled
        found.append((calls, attributes))
    assert found[0] == found[1]


@pytest.mark.parametrize("versions", [[3], ["long name"], [1, 1], [1, "b"], [None]])
def test_version_beside_the_bar(versions: list[Any], tmp_path: Path) -> None:
    found = []
    for namespace in (OURS, REFERENCE):
        bars = importlib.import_module(
            f"{namespace}.pytorch.callbacks.progress.progress_bar"
        )
        loggers = importlib.import_module(f"{namespace}.pytorch.loggers")

        class Numbered(loggers.CSVLogger):  # type: ignore[misc,name-defined]
            version: Any = None

        made = [Numbered(tmp_path) for _ in versions]
        for logger, version in zip(made, versions, strict=True):
            logger.version = version
        trainer = quiet_trainer(namespace, logger=made)
        found.append(bars.get_standard_metrics(trainer))
    assert found[0] == found[1]


@pytest.mark.parametrize("leave", [False, True])
def test_columns_and_theme_of_the_rich_bar(
    leave: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    from rich.progress import TextColumn

    for namespace in (OURS, REFERENCE):
        progress = importlib.import_module(
            f"{namespace}.pytorch.callbacks.progress.rich_progress"
        )

        class Own(progress.RichProgressBar):  # type: ignore[misc,name-defined]
            tasks: list[Any]

            def configure_columns(self, trainer: Any) -> list[Any]:
                return [*super().configure_columns(trainer), TextColumn("own column")]

            def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
                super().on_train_epoch_end(trainer, pl_module)
                task = self.train_progress_bar
                self.tasks.append((task.completed, task.total))

        theme = progress.RichProgressBarTheme(
            description="green",
            progress_bar="red",
            metrics_text_delimiter=" / ",
            metrics_format=".2e",
        )
        bar = Own(leave=leave, theme=theme, console_kwargs={"force_terminal": True})
        bar.tasks = []
        torch.manual_seed(0)
        fitted(namespace, bar)
        assert bar.tasks == [(6, 6), (6, 6)]
        shown = capsys.readouterr()
        assert "own column" in shown.out + shown.err
