"""A progress bar drawn by tqdm."""

from __future__ import annotations

import math
from importlib.util import find_spec
from time import monotonic
from typing import TYPE_CHECKING, Any

from lightgen_runtime.callbacks.progress.progress_bar import ProgressBar, epoch_label
from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.imports import import_extra

if TYPE_CHECKING:
    from lightgen_runtime.callbacks.callback import StepOutput
    from lightgen_runtime.core.module import LightningModule
    from lightgen_runtime.trainer.trainer import Trainer

REFRESH_INTERVAL_S = 0.1  # faster is not seen, and reading metrics waits for the device


class TQDMProgressBar(ProgressBar):
    """Draw one tqdm bar for training and one below it while validation lasts.

    Override an `init_*_tqdm` method to draw a bar in another way. Bars go to stderr, or
    into the page in a notebook.

    Args:
        refresh_rate: Batches between two drawings; 0 shows nothing. Whatever it is, bars
            are drawn at most ten times a second.
        process_position: Pairs of lines to leave free above the bars.
        leave: Keep the bar of each epoch rather than only the last one.

    Raises:
        MisconfigurationException: `refresh_rate` is negative.
        MissingDependencyError: tqdm is not installed.

    Cost: one call a batch.
    """

    BAR_FORMAT = (
        "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}"
        "{postfix}]"
    )

    def __init__(
        self, refresh_rate: int = 1, process_position: int = 0, leave: bool = False
    ) -> None:
        super().__init__()
        if refresh_rate < 0:
            raise MisconfigurationException(
                f"`TQDMProgressBar(refresh_rate={refresh_rate})`: use the number of "
                "batches between two drawings, or 0 to show nothing"
            )
        self._tqdm = import_extra(
            "tqdm.auto" if find_spec("ipywidgets") else "tqdm",
            install="pip install tqdm",
            used_by=f"`{type(self).__name__}`",
        ).tqdm
        self._refresh_rate = refresh_rate
        self._process_position = process_position
        self._leave = leave
        self._bars: dict[str, Any] = {}
        self._next_drawing = 0.0
        self._is_enabled = refresh_rate > 0

    @property
    def refresh_rate(self) -> int:
        """Batches between two drawings."""
        return self._refresh_rate

    @property
    def process_position(self) -> int:
        """Pairs of lines left free above the bars."""
        return self._process_position

    def enable(self) -> None:
        """Draw from now on, unless `refresh_rate` is 0."""
        self._is_enabled = self._refresh_rate > 0

    @property
    def train_progress_bar(self) -> Any:
        """The bar of training."""
        return self._bar("train")

    @train_progress_bar.setter
    def train_progress_bar(self, bar: Any) -> None:
        self._bars["train"] = bar

    @property
    def val_progress_bar(self) -> Any:
        """The bar of validation, or of the sanity check."""
        return self._bar("val")

    @val_progress_bar.setter
    def val_progress_bar(self, bar: Any) -> None:
        self._bars["val"] = bar

    @property
    def test_progress_bar(self) -> Any:
        """The bar of testing."""
        return self._bar("test")

    @test_progress_bar.setter
    def test_progress_bar(self, bar: Any) -> None:
        self._bars["test"] = bar

    @property
    def predict_progress_bar(self) -> Any:
        """The bar of prediction."""
        return self._bar("predict")

    @predict_progress_bar.setter
    def predict_progress_bar(self, bar: Any) -> None:
        self._bars["predict"] = bar

    def print(self, *args: Any, sep: str = " ", **kwargs: Any) -> None:
        """Print above the bars."""
        if self._bars:
            self._tqdm.write(sep.join(map(str, args)), **kwargs)
        else:
            super().print(*args, sep=sep, **kwargs)

    # ---- the bars; override these to change them ----

    def init_sanity_tqdm(self) -> Any:
        """Return the bar of the sanity check."""
        return self._new(self.sanity_check_description, leave=False)

    def init_train_tqdm(self) -> Any:
        """Return the bar of training."""
        return self._new(self.train_description, leave=True, smoothing=0)

    def init_validation_tqdm(self) -> Any:
        """Return the bar of validation."""
        inside = self.trainer.state.fn == "fit"
        return self._new(self.validation_description, leave=not inside, below=inside)

    def init_test_tqdm(self) -> Any:
        """Return the bar of testing."""
        return self._new(self.test_description, leave=True)

    def init_predict_tqdm(self) -> Any:
        """Return the bar of prediction."""
        return self._new(self.predict_description, leave=True, smoothing=0)

    def _new(self, description: str, below: bool = False, **kwargs: Any) -> Any:
        return self._tqdm(
            desc=description,
            position=2 * self._process_position + below,
            disable=self.is_disabled,
            dynamic_ncols=True,
            bar_format=self.BAR_FORMAT,
            **kwargs,
        )

    # ---- training ----

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the bar."""
        self._bars["train"] = self.init_train_tqdm()

    def on_train_epoch_start(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> None:
        """Begin the epoch's bar."""
        if self._leave and "train" in self._bars and trainer.current_epoch > 0:
            self._close("train")
            self._bars["train"] = self.init_train_tqdm()
        self._begin("train", self.total_train_batches, epoch_label(trainer))

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: StepOutput,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Draw, if that is due."""
        if monotonic() >= self._next_drawing:
            self._advance("train", batch_idx + 1, trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the epoch's end, with its metrics."""
        self._draw("train", trainer.progress.batch_idx, trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the bar there."""
        self._close("train")

    # ---- validation ----

    def on_sanity_check_start(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> None:
        """Draw the sanity check's bar."""
        self._bars["val"] = self.init_sanity_tqdm()

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Erase it."""
        self._close("val")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw validation's bar."""
        self.reset_dataloader_idx_tracker()
        if not trainer.sanity_checking:
            self._bars["val"] = self.init_validation_tqdm()

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Begin again with each loader."""
        if self.has_dataloader_changed(dataloader_idx):
            name = self.validation_description
            if trainer.sanity_checking:
                name = self.sanity_check_description
            total = self.total_val_batches_current_dataloader
            self._begin("val", total, _numbered(name, dataloader_idx))

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: StepOutput,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw, if that is due."""
        if monotonic() >= self._next_drawing or self._at_end("val", batch_idx):
            self._advance("val", batch_idx + 1)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Erase the bar, or leave it there when validation is all there was."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._show_metrics("train", trainer, pl_module)
        if not trainer.sanity_checking:
            self._close("val")
        self.reset_dataloader_idx_tracker()

    # ---- testing and prediction ----

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the bar."""
        self._bars["test"] = self.init_test_tqdm()

    def on_test_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Begin again with each loader."""
        if self.has_dataloader_changed(dataloader_idx):
            total = self.total_test_batches_current_dataloader
            self._begin("test", total, _numbered(self.test_description, dataloader_idx))

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: StepOutput,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw, if that is due."""
        if monotonic() >= self._next_drawing or self._at_end("test", batch_idx):
            self._advance("test", batch_idx + 1)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the bar there."""
        self._close("test")

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the bar."""
        self._bars["predict"] = self.init_predict_tqdm()

    def on_predict_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Begin again with each loader."""
        if self.has_dataloader_changed(dataloader_idx):
            total = self.total_predict_batches_current_dataloader
            self._begin(
                "predict", total, _numbered(self.predict_description, dataloader_idx)
            )

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw, if that is due."""
        if monotonic() >= self._next_drawing or self._at_end("predict", batch_idx):
            self._advance("predict", batch_idx + 1)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the bar there."""
        self._close("predict")

    def teardown(
        self, trainer: Trainer, pl_module: LightningModule, stage: str
    ) -> None:
        """Give the terminal back, whatever happened."""
        for name in self._bars:
            self._close(name)

    # ---- drawing ----

    def _bar(self, name: str) -> Any:
        if name not in self._bars:
            raise TypeError(
                f"the {name} bar does not exist yet: it is made when its stage starts"
            )
        return self._bars[name]

    def _begin(self, name: str, total: int | float, description: str) -> None:
        bar = self._bars.get(name)
        if bar is not None:
            bar.reset(total=None if math.isinf(total) else total)
            bar.set_description(description)
            self._next_drawing = 0.0

    def _at_end(self, name: str, batch_idx: int) -> bool:
        return bool(self._bars[name].total == batch_idx + 1)

    def _advance(
        self,
        name: str,
        done: int,
        trainer: Trainer | None = None,
        pl_module: LightningModule | None = None,
    ) -> None:
        at_end = name in self._bars and self._bars[name].total == done
        if self._is_enabled and (done % self._refresh_rate == 0 or at_end):
            self._draw(name, done, trainer, pl_module)

    def _draw(
        self,
        name: str,
        done: int,
        trainer: Trainer | None = None,
        pl_module: LightningModule | None = None,
    ) -> None:
        bar = self._bars.get(name)
        if bar is None or not self._is_enabled:
            return
        bar.n = done
        if trainer is not None and pl_module is not None:
            self._show_metrics(name, trainer, pl_module)
        bar.refresh()
        self._next_drawing = monotonic() + REFRESH_INTERVAL_S

    def _show_metrics(
        self, name: str, trainer: Trainer, pl_module: LightningModule
    ) -> None:
        bar = self._bars.get(name)
        if bar is not None and self._is_enabled:
            bar.set_postfix(self.get_metrics(trainer, pl_module), refresh=False)

    def _close(self, name: str) -> None:
        if name in self._bars:
            self._bars[name].close()


def _numbered(description: str, dataloader_idx: int) -> str:
    return f"{description} DataLoader {dataloader_idx}"
