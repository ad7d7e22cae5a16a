"""`TQDMProgressBar`: totals, metrics, what stays on the screen, how often it is drawn."""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest
from small_runs import Small, fitted, loader, quiet

from lightgen_runtime.callbacks import TQDMProgressBar
from lightgen_runtime.callbacks.progress import tqdm_progress
from lightgen_runtime.utilities.exceptions import (
    MisconfigurationException,
    MissingDependencyError,
)

pytest.importorskip("tqdm")


class Logging(Small):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        self.log("loss", loss, prog_bar=True)
        return loss


def test_bars_reach_their_ends(capsys: pytest.CaptureFixture[str]) -> None:
    bar = TQDMProgressBar()
    trainer = fitted(Logging(), callbacks=[bar], enable_progress_bar=True, max_epochs=2)
    assert (bar.train_progress_bar.n, bar.train_progress_bar.total) == (4, 4)
    assert (bar.val_progress_bar.n, bar.val_progress_bar.total) == (2, 2)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Epoch 2/2: 100%" in shown.err
    assert "loss=" in shown.err
    trainer.test(Small(), loader(), verbose=False)
    trainer.predict(Small(), [loader(4), loader(6)])
    assert (bar.test_progress_bar.n, bar.test_progress_bar.total) == (4, 4)
    assert (bar.predict_progress_bar.n, bar.predict_progress_bar.total) == (3, 3)
    assert "Predicting DataLoader 1: 100%" in capsys.readouterr().err


@pytest.mark.parametrize("leave", [False, True])
def test_each_epoch_keeps_its_bar_if_asked_to(leave: bool) -> None:
    made = []

    class Counted(TQDMProgressBar):
        def init_train_tqdm(self) -> Any:
            made.append(super().init_train_tqdm())
            return made[-1]

    callbacks = [Counted(leave=leave)]
    fitted(Small(), callbacks=callbacks, enable_progress_bar=True, max_epochs=3)
    assert len(made) == (3 if leave else 1)


def test_metrics_are_read_ten_times_a_second_at_the_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]
    reads = []

    class Counted(TQDMProgressBar):
        def on_train_batch_end(self, *args: Any) -> None:
            clock[0] += 0.03
            super().on_train_batch_end(*args)

        def get_metrics(self, *args: Any) -> Any:
            reads.append(clock[0])
            return {}

    monkeypatch.setattr(tqdm_progress, "monotonic", lambda: clock[0])
    trainer = quiet(callbacks=[Counted()], enable_progress_bar=True)
    trainer.fit(Small(), loader(40))
    assert 5 <= len(reads) <= 20 * 0.03 / 0.1 + 2


def test_bar_is_drawn_every_so_many_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    class Noting(TQDMProgressBar):
        def get_metrics(self, *args: Any) -> Any:
            drawn.append(self.train_progress_bar.n)
            return {}

    monkeypatch.setattr(tqdm_progress, "REFRESH_INTERVAL_S", 0.0)
    trainer = quiet(callbacks=[Noting(refresh_rate=3)], enable_progress_bar=True)
    trainer.fit(Small(), loader(14))
    assert list(dict.fromkeys(drawn)) == [3, 6, 7]  # and the last of the epoch


def test_rate_of_zero_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    fitted(Small(), callbacks=[TQDMProgressBar(0)], enable_progress_bar=True)
    assert "Epoch" not in capsys.readouterr().err


def test_bar_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    class Own(TQDMProgressBar):
        def init_train_tqdm(self) -> Any:
            bar = super().init_train_tqdm()
            bar.set_description("Mine")
            return bar

        @property
        def validation_description(self) -> str:
            return "Checking"

    fitted(Small(), callbacks=[Own()], enable_progress_bar=True)
    shown = capsys.readouterr().err
    assert "Mine" in shown
    assert "Checking" in shown


def test_bar_that_does_not_exist_yet_is_named() -> None:
    with pytest.raises(TypeError, match="the train bar"):
        _ = TQDMProgressBar().train_progress_bar


def test_negative_rate_is_refused() -> None:
    with pytest.raises(MisconfigurationException, match="refresh_rate=-1"):
        TQDMProgressBar(-1)


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(MissingDependencyError, match="pip install tqdm"):
        TQDMProgressBar()


def test_printing_goes_where_it_is_told_to() -> None:
    bar = TQDMProgressBar()
    fitted(Small(), callbacks=[bar], enable_progress_bar=True)
    stream = io.StringIO()
    bar.print("a", "b", sep="-", file=stream)
    assert stream.getvalue() == "a-b\n"
