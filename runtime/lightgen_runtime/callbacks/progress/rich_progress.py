"""A progress bar on the terminal, drawn by Rich."""

from __future__ import annotations

import io
import math
import sys
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

from lightgen_runtime.callbacks.progress.progress_bar import (
    ProgressBar,
    epoch_label,
    format_metrics,
)
from lightgen_runtime.utilities.exceptions import MisconfigurationException

if TYPE_CHECKING:
    from rich.progress import Progress, Task, TaskID
    from rich.style import Style

    from lightgen_runtime.callbacks.callback import StepOutput
    from lightgen_runtime.core.module import LightningModule
    from lightgen_runtime.trainer.trainer import Trainer

REFRESH_INTERVAL_S = (
    0.2  # faster is hardly seen, and each drawing makes hundreds of calls
)


@dataclass
class RichProgressBarTheme:
    """Styles of the parts of a `RichProgressBar`, as Rich writes them.

    Attributes:
        description: The name of the stage, or the epoch.
        progress_bar: The bar.
        progress_bar_finished: The bar at its end.
        progress_bar_pulse: The bar when nobody knows how long it will be.
        batch_progress: The number of batches.
        time: The time so far, and what is left.
        processing_speed: The batches a second.
        metrics: The metrics.
        metrics_text_delimiter: Between two metrics.
        metrics_format: How a number is written.

    Compat: the names are Lightning's, the looks are Rich's own.
    """

    description: str | Style = ""
    progress_bar: str | Style = "bar.complete"
    progress_bar_finished: str | Style = "bar.finished"
    progress_bar_pulse: str | Style = "bar.pulse"
    batch_progress: str | Style = ""
    time: str | Style = "dim"
    processing_speed: str | Style = "dim"
    metrics: str | Style = ""
    metrics_text_delimiter: str = "  "
    metrics_format: str = ".4g"


_DEFAULT_THEME = RichProgressBarTheme()


class _Row:
    """One line of the display: a stage, how far it is, how fast it goes."""

    def __init__(self, description: str, total: int | float, done: int = 0) -> None:
        self.description = description
        self.total = None if math.isinf(total) else int(total)
        self.done = done
        self.metrics = ""
        self.paused_s = 0.0
        self.task_id: TaskID | None = None
        self._done_before = done
        self._started = monotonic()

    def columns(self) -> dict[str, Any]:
        """Return what Rich needs to draw the line."""
        elapsed_s = monotonic() - self._started - self.paused_s
        done = self.done - self._done_before
        # A line that has hardly begun has no speed worth reading.
        runs = done > 0 and elapsed_s > 0.05
        rate = f"{done / elapsed_s:.1f} it/s" if runs else ""
        left_s = None
        if runs and self.total is not None:
            left_s = (self.total - self.done) * elapsed_s / done
        return {
            "description": self.description,
            "completed": self.done,
            "total": self.total,
            "count": f"{self.done}/{'?' if self.total is None else self.total}",
            "time": f"{_clock(elapsed_s)}<{_clock(left_s)}",
            "rate": rate,
            "metrics": self.metrics,
        }


class RichProgressBar(ProgressBar):
    """Draw one moving line for training, and another while validation lasts.

    Lines are drawn at most five times a second, and only then are metrics read from the
    device. They go to stderr.

    Args:
        refresh_rate: Drawings a second, of which there are five at most; 0 shows nothing.
        leave: Keep the line of each epoch rather than only the last one.
        theme: Styles of its parts.
        console_kwargs: Arguments for `rich.console.Console`.
    """

    def __init__(
        self,
        refresh_rate: int = 100,
        leave: bool = False,
        theme: RichProgressBarTheme = _DEFAULT_THEME,
        console_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if refresh_rate < 0:
            raise MisconfigurationException(
                f"`refresh_rate={refresh_rate}` is not accepted. Use 0 to show nothing, "
                "or how often a second to draw."
            )
        self._refresh_rate = refresh_rate
        self._interval_s = max(REFRESH_INTERVAL_S, 1 / (refresh_rate or math.inf))
        self.theme = theme
        self._leave = leave
        self._console_kwargs = console_kwargs or {}
        self.progress: Progress | None = None
        self._train_row: _Row | None = None
        self._eval_row: _Row | None = None
        self._eval_started = 0.0
        self._next_drawing = 0.0
        self.enable()

    @property
    def refresh_rate(self) -> int:
        """Drawings a second; 0 when nothing is ever shown."""
        return self._refresh_rate

    @property
    def train_progress_bar(self) -> Task:
        """Rich's task of training."""
        return self._task(self._train_row, "training")

    @property
    def val_progress_bar(self) -> Task:
        """Rich's task of validation."""
        return self._task(self._eval_row, "validation")

    @property
    def val_sanity_check_bar(self) -> Task:
        """Rich's task of the sanity check."""
        return self._task(self._eval_row, "sanity check")

    @property
    def test_progress_bar(self) -> Task:
        """Rich's task of testing."""
        return self._task(self._eval_row, "test")

    def _task(self, row: _Row | None, name: str) -> Task:
        if self.progress is None or row is None or row.task_id is None:
            raise TypeError(
                f"there is no {name} bar yet: it is made when it is first drawn"
            )
        return next(task for task in self.progress.tasks if task.id == row.task_id)

    def enable(self) -> None:
        """Draw from now on, unless `refresh_rate` is 0."""
        self._is_enabled = self._refresh_rate > 0
        self._next_drawing = 0.0 if self._is_enabled else math.inf

    def disable(self) -> None:
        """Draw nothing from now on."""
        self._is_enabled = False
        self._next_drawing = math.inf

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print above the bar; arguments are those of `print`."""
        is_elsewhere = kwargs.get("file") is not None or not sys.stdout.isatty()
        if self.progress is None or is_elsewhere:
            super().print(*args, **kwargs)
            return
        text = io.StringIO()
        super().print(*args, **{**kwargs, "file": text})
        # `out` takes brackets for what they are. It ends the line in any case, as the
        # bar is drawn on the next one.
        line = text.getvalue().removesuffix("\n")
        self.progress.console.out(line, highlight=False)

    # Training.

    def on_train_epoch_start(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> None:
        """Begin the epoch's line."""
        if not self._leave:
            self._erase(self._train_row)
        self._train_row = _Row(epoch_label(trainer), self.total_train_batches)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: StepOutput,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Draw, if the last time is long enough ago."""
        if monotonic() >= self._next_drawing:
            self._show_training(trainer, pl_module, batch_idx + 1)

    def _show_training(
        self, trainer: Trainer, pl_module: LightningModule, done: int
    ) -> None:
        row = self._train_row
        if row is None:  # resumed in mid-epoch, whose start nobody announced
            row = _Row(epoch_label(trainer), self.total_train_batches, done)
            self._train_row = row
        row.done = done
        row.metrics = format_metrics(
            self.get_metrics(trainer, pl_module),
            self.theme.metrics_format,
            self.theme.metrics_text_delimiter,
        )
        self._draw(row)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the epoch's line with its last metrics, if it stays or it is time to."""
        row = self._train_row
        if row is None or not self._is_enabled:
            return
        row.done = row.done if row.total is None else row.total
        if self._leave or monotonic() >= self._next_drawing:
            self._show_training(trainer, pl_module, row.done)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw what the end of the last epoch added, and leave the line there."""
        row = self._train_row
        if row is not None and self._is_enabled:
            self._show_training(trainer, pl_module, row.done)
        self._close()

    # Validation, testing, prediction.

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a line, which appears only if validation lasts."""
        self._eval_started = monotonic()
        self.reset_dataloader_idx_tracker()
        row = self._train_row
        if row is not None and self._is_enabled and trainer.is_last_batch:
            self._show_training(trainer, pl_module, row.total or row.done)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: StepOutput,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw, if the last time is long enough ago."""
        if monotonic() >= self._next_drawing:
            name = self.validation_description
            if trainer.sanity_checking:
                name = self.sanity_check_description
            self._show_evaluation(name, batch_idx, dataloader_idx)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Erase the line, or leave it there when validation is all there was."""
        self._end_evaluation(keep=trainer.state.fn == "validate")

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: StepOutput,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw, if the last time is long enough ago."""
        if monotonic() >= self._next_drawing:
            self._show_evaluation(self.test_description, batch_idx, dataloader_idx)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the line there."""
        self._end_evaluation(keep=True)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw, if the last time is long enough ago."""
        if monotonic() >= self._next_drawing:
            self._show_evaluation(self.predict_description, batch_idx, dataloader_idx)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the line there."""
        self._end_evaluation(keep=True)

    def _show_evaluation(self, name: str, batch_idx: int, dataloader_idx: int) -> None:
        totals = self._eval_batches()
        if self.has_dataloader_changed(dataloader_idx) or self._eval_row is None:
            self._erase(self._eval_row)
            if len(totals) > 1:
                name = f"{name} {dataloader_idx + 1}/{len(totals)}"
            self._eval_row = _Row(name, totals[dataloader_idx])
        self._eval_row.done = batch_idx + 1
        self._draw(self._eval_row)

    def _eval_batches(self) -> list[int | float]:
        trainer = self.trainer
        if trainer.sanity_checking:
            return trainer.num_sanity_val_batches
        if trainer.testing:
            return trainer.num_test_batches
        if trainer.predicting:
            return trainer.num_predict_batches
        return trainer.num_val_batches

    def _end_evaluation(self, keep: bool) -> None:
        row, self._eval_row = self._eval_row, None
        if keep:
            if row is not None and row.total is not None:
                row.done = row.total
                self._draw(row)
            self._close()
            return
        self._erase(row)
        if self._train_row is not None:
            self._train_row.paused_s += monotonic() - self._eval_started

    # Drawing.

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Finish the line, so that the error starts on one of its own."""
        self._close()

    def teardown(
        self, trainer: Trainer, pl_module: LightningModule, stage: str
    ) -> None:
        """Give the terminal back, whatever happened."""
        self._close()

    def _draw(self, row: _Row) -> None:
        if self.progress is None:
            self.progress = self._open()
        columns = row.columns()
        if row.task_id is None:
            row.task_id = self.progress.add_task(**columns)
        self.progress.update(row.task_id, **columns)
        self.refresh()
        self._next_drawing = monotonic() + self._interval_s

    def refresh(self, hard: bool = False) -> None:
        """Draw now; `hard` is accepted for compatibility."""
        if self.progress is not None:
            self.progress.refresh()

    def _erase(self, row: _Row | None) -> None:
        if self.progress is not None and row is not None and row.task_id is not None:
            self.progress.remove_task(row.task_id)

    def configure_columns(self, trainer: Trainer) -> list[Any]:
        """Return what a line consists of; override it to add or leave out columns.

        A column finds `count`, `time`, `rate` and `metrics` in `task.fields`.
        """
        from rich.progress import BarColumn, TextColumn
        from rich.table import Column

        theme = self.theme

        def text(name: str, style: Any, **kwargs: Any) -> TextColumn:
            return TextColumn(name, style=style or "none", markup=False, **kwargs)

        return [
            text("{task.description}", theme.description),
            BarColumn(
                bar_width=24,
                complete_style=theme.progress_bar,
                finished_style=theme.progress_bar_finished,
                pulse_style=theme.progress_bar_pulse,
            ),
            text("{task.fields[count]}", theme.batch_progress),
            text("{task.fields[time]}", theme.time),
            text("{task.fields[rate]}", theme.processing_speed),
            text(
                "{task.fields[metrics]}",
                theme.metrics,
                table_column=Column(no_wrap=True, overflow="ellipsis"),
            ),
        ]

    def _open(self) -> Progress:
        from rich.console import Console
        from rich.progress import Progress

        kind: type[Progress] = Progress  # which draws whatever columns there are
        if type(self).configure_columns is RichProgressBar.configure_columns:
            from lightgen_runtime.callbacks.progress.rich_lines import ProgressLines

            kind = ProgressLines
        progress = kind(
            *self.configure_columns(self.trainer),
            console=Console(**{"stderr": True, **self._console_kwargs}),
            auto_refresh=False,  # no thread: nothing happens between two drawings
            # What the user prints must not end up in the middle of the bar, but output
            # that goes to a file or pipe must go on going there.
            redirect_stdout=sys.stdout.isatty(),
            redirect_stderr=True,
        )
        progress.start()
        return progress

    def _close(self) -> None:
        if self.progress is not None:
            self.progress.stop()
        self.progress = None
        self._train_row = None
        self._eval_row = None


def _clock(seconds: float | None) -> str:
    """Write a time as hours, minutes and seconds, as far as they are needed."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
