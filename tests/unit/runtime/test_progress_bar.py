"""What a person sees while a run goes on."""

import io
import itertools
import re
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from lightgen_runtime import LightningModule, Trainer
from lightgen_runtime.callbacks import (
    Callback,
    PlainProgressBar,
    ProgressBar,
    RichProgressBar,
)
from lightgen_runtime.callbacks.progress import (
    default_progress_bar,
    plain_progress,
    rich_progress,
)
from lightgen_runtime.utilities.exceptions import MisconfigurationException


class Net(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch).square().mean()
        self.log("train_loss", loss, prog_bar=True)
        self.log("hidden", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_acc", 0.25, prog_bar=True)

    def test_step(self, batch, batch_idx):
        self.log("test_acc", 0.5)

    def predict_step(self, batch, batch_idx):
        return self.layer(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


ERASE_LINE = "\x1b[2K"
HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


def loader(batches):
    return DataLoader(torch.ones(batches * 2, 2), batch_size=2)


def make_trainer(tmp_path, *callbacks, **flags):
    return Trainer(
        **{"max_epochs": 2, **flags},
        accelerator="cpu",
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )


def rich_bar(width=100, **options):
    """Return a bar that draws on a terminal made of paper."""
    paper = io.StringIO()
    console = {"file": paper, "force_terminal": True, "width": width, "stderr": False}
    return RichProgressBar(console_kwargs=console, **options), paper


def last_line(paper):
    """Return what the last line on the paper ends up as."""
    written = paper.getvalue().replace(SHOW_CURSOR, "").rstrip().splitlines()[-1]
    return written.split(ERASE_LINE)[-1]


class Failing(Callback):
    def __init__(self, error):
        self.error = error

    def on_train_batch_end(self, *args):
        raise self.error


def test_plain_lines_are_one_an_epoch_with_its_metrics(tmp_path, capsys):
    trainer = make_trainer(tmp_path, PlainProgressBar())
    trainer.fit(Net(), loader(4), loader(1))
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("Epoch")]
    assert captured.out == ""
    assert [line.split("  ")[0] for line in lines] == ["Epoch 1/2", "Epoch 2/2"]
    assert all(re.search(r"train_loss \d", line) for line in lines)
    assert all("val_acc 0.25" in line for line in lines)
    assert "hidden" not in captured.err


def test_plain_line_of_a_resumed_epoch_counts_from_the_resumption(
    tmp_path, capsys, monkeypatch
):
    class Saving(Callback):
        def on_train_batch_end(self, trainer, *args):
            if trainer.global_step == 2:
                trainer.save_checkpoint(tmp_path / "middle.ckpt")

    make_trainer(tmp_path, Saving(), max_epochs=1).fit(Net(), loader(4))
    capsys.readouterr()
    monkeypatch.setattr(plain_progress, "monotonic", lambda: 5000.0)
    trainer = make_trainer(tmp_path, PlainProgressBar(), max_epochs=1)
    trainer.fit(Net(), loader(4), ckpt_path=tmp_path / "middle.ckpt")
    assert "Epoch 1/1  0.0 s" in capsys.readouterr().err


def test_plain_lines_name_validation_in_mid_epoch(tmp_path, capsys):
    trainer = make_trainer(
        tmp_path, PlainProgressBar(), max_epochs=1, val_check_interval=2
    )
    trainer.fit(Net(), loader(4), loader(1))
    lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("Epoch")]
    assert lines[0].startswith("Epoch 1/1  step 2  ")
    assert "val_acc 0.25" in lines[0]
    assert len(lines) == 2


@pytest.mark.parametrize(
    ("verb", "line"),
    [("validate", "Validation  "), ("test", "Testing  "), ("predict", "Predicting  ")],
)
def test_plain_lines_tell_that_a_stage_is_done(verb, line, tmp_path, capsys):
    trainer = make_trainer(tmp_path, PlainProgressBar())
    getattr(trainer, verb)(Net(), loader(2))
    lines = capsys.readouterr().err.splitlines()
    assert sum(text.startswith(line) for text in lines) == 1


def test_rich_bar_shows_epoch_count_speed_and_metrics(tmp_path, monkeypatch):
    ticks = itertools.count()
    monkeypatch.setattr(rich_progress, "monotonic", lambda: float(next(ticks)))
    bar, paper = rich_bar()
    make_trainer(tmp_path, bar).fit(Net(), loader(4), loader(1))
    last = last_line(paper)
    for words in ("Epoch 2/2", "4/4", "it/s", "train_loss ", "val_acc 0.25"):
        assert words in last, last
    assert "hidden" not in paper.getvalue()


def test_rich_bar_fits_a_narrow_terminal(tmp_path):
    bar, paper = rich_bar(width=70)
    make_trainer(tmp_path, bar).fit(Net(), loader(4), loader(1))
    final = paper.getvalue().split(ERASE_LINE)[-1]
    assert final.count("\n") <= 1


def drawn_by(bar, count=3):
    """Return a bar of a training epoch and a validation that have been drawn."""
    trainer = SimpleNamespace(
        max_epochs=10,
        current_epoch=0,
        is_global_zero=True,
        loggers=[],
        num_training_batches=100,
        num_val_batches=[7],
        sanity_checking=False,
        testing=False,
        predicting=False,
        progress_bar_metrics={"train_loss": 0.5},
    )
    bar.setup(trainer, None, "fit")
    bar.on_train_epoch_start(trainer, None)
    for batch_idx in range(count):
        bar._show_training(trainer, None, batch_idx + 1)
    bar._show_evaluation("Validation", count - 1, 0)
    return trainer


def plain(text):
    """Return a text without the codes of a terminal."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\r", "", text)


@pytest.mark.parametrize("colors", ["truecolor", None])
def test_columns_of_rich_bar_are_below_each_other(colors):
    bar, paper = rich_bar()
    bar._console_kwargs["color_system"] = colors
    drawn_by(bar)
    bar.teardown(None, None, "fit")
    final = plain(paper.getvalue().split(ERASE_LINE)[-1])
    training, validation = final.strip().splitlines()
    assert training.startswith("Epoch 1/10 ")
    assert validation.startswith("Validation ")
    assert training.index("3/100") == validation.index("3/7") == 11 + 24 + 1
    assert training.index("0:00<") == validation.index("0:00<")


@pytest.mark.parametrize(("width", "end"), [(60, "\u2026"), (100, "train_loss 0.5")])
def test_line_of_rich_bar_is_cut_where_the_terminal_ends(width, end):
    bar, paper = rich_bar(width=width)
    drawn_by(bar)
    bar._erase(bar._eval_row)
    bar.refresh()
    line = plain(last_line(paper))
    assert line.endswith(end)
    assert len(line) <= width


def calls_of_a_drawing(bar):
    trainer = drawn_by(bar)
    bar._erase(bar._eval_row)
    bar._show_training(trainer, None, 4)
    calls = []
    sys.setprofile(lambda frame, event, arg: calls.append(event))
    bar._show_training(trainer, None, 5)
    sys.setprofile(None)
    return calls.count("call")


def test_drawing_of_rich_bar_makes_a_third_of_the_calls_of_a_table():
    class Own(RichProgressBar):
        def configure_columns(self, trainer):  # which Rich draws as a table
            return super().configure_columns(trainer)

    counts = []
    for kind in (RichProgressBar, Own):
        console = {"file": io.StringIO(), "force_terminal": True, "width": 100}
        counts.append(calls_of_a_drawing(kind(console_kwargs=console)))
    assert counts[0] < 800
    assert counts[0] < counts[1] / 2.5


def test_rich_bar_leaves_lines_of_all_epochs_only_on_request(tmp_path):
    leaving, paper = rich_bar(leave=True)
    make_trainer(tmp_path, leaving).fit(Net(), loader(4), loader(1))
    first, second = paper.getvalue().replace(SHOW_CURSOR, "").rstrip().split("\n")[-2:]
    assert "Epoch 1/2" in first
    assert "Epoch 2/2" in second


@pytest.mark.parametrize(
    ("verb", "name"),
    [("validate", "Validation"), ("test", "Testing"), ("predict", "Predicting")],
)
def test_rich_bar_keeps_the_line_of_a_stage_alone(verb, name, tmp_path, capsys):
    bar, paper = rich_bar()
    getattr(make_trainer(tmp_path, bar), verb)(Net(), loader(3))
    last = last_line(paper)
    assert name in last
    assert "3/3" in last


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("user code")])
def test_rich_bar_gives_the_terminal_back_after_an_exception(tmp_path, error):
    bar, paper = rich_bar()
    stderr, stdout = sys.stderr, sys.stdout
    with pytest.raises(type(error)):
        make_trainer(tmp_path, bar, Failing(error)).fit(Net(), loader(4))
    assert paper.getvalue().endswith("\n" + SHOW_CURSOR)
    assert paper.getvalue().count(HIDE_CURSOR) == 1
    assert (sys.stderr, sys.stdout) == (stderr, stdout)


def test_rich_bar_reads_metrics_only_when_it_draws(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(rich_progress, "monotonic", lambda: now[0])
    reads = []

    class Counting(RichProgressBar):
        def get_metrics(self, trainer, pl_module):
            reads.append(trainer.global_step)
            return super().get_metrics(trainer, pl_module)

    class Clock(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            now[0] += 0.04

    bar = Counting(console_kwargs={"file": io.StringIO(), "force_terminal": True})
    make_trainer(tmp_path, Clock(), bar, max_epochs=1).fit(Net(), loader(10))
    # Ten batches in 0.4 s: at most five times while they run, twice at the end.
    assert reads[0] == 1
    assert len(reads) <= 7


@pytest.mark.parametrize(("rate", "drawings"), [(1, 3), (2, 4), (100, 6)])
def test_rich_bar_draws_as_often_a_second_as_asked_to(
    rate, drawings, tmp_path, monkeypatch
):
    now, drawn = [0.0], []

    class Counting(RichProgressBar):
        def get_metrics(self, trainer, pl_module):
            drawn.append(now[0])
            return {}

    class Clock(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            now[0] += 0.125  # ten batches are 1.25 s

    monkeypatch.setattr(rich_progress, "monotonic", lambda: now[0])
    console = {"file": io.StringIO(), "force_terminal": True}
    bar = Counting(refresh_rate=rate, console_kwargs=console)
    make_trainer(tmp_path, bar, Clock(), max_epochs=1).fit(Net(), loader(10))
    assert len(drawn) == drawings  # the last one when training ends


def test_rich_bar_between_drawings_is_one_call(monkeypatch):
    bar, _ = rich_bar()
    bar._next_drawing = float("inf")
    calls = []
    sys.setprofile(lambda frame, event, arg: calls.append(event))
    bar.on_train_batch_end(None, None, None, None, 0)
    sys.setprofile(None)
    assert calls.count("call") == 1


def test_rich_bar_can_be_switched_off(tmp_path):
    bar, paper = rich_bar()
    bar.disable()
    assert bar.is_disabled
    make_trainer(tmp_path, bar).fit(Net(), loader(2), loader(1))
    assert paper.getvalue() == ""


def test_rich_bar_of_rate_zero_shows_nothing(tmp_path):
    bar, paper = rich_bar(refresh_rate=0)
    bar.enable()
    assert bar.is_disabled
    make_trainer(tmp_path, bar).fit(Net(), loader(2), loader(1))
    assert paper.getvalue() == ""


class Printing(Callback):
    def on_train_batch_end(self, trainer, *args):
        trainer.print("[batch]", [1, 2], "[/end]", sep=" | ", flush=True)
        trainer.print("long " * 40, end="")
        trainer.print("elsewhere", file=sys.stderr)


def test_rich_bar_prints_text_as_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    bar, paper = rich_bar()
    trainer = make_trainer(tmp_path, bar, Printing(), max_epochs=1)
    trainer.fit(Net(), loader(2))
    written = paper.getvalue().replace(ERASE_LINE, "")
    assert "[batch] | [1, 2] | [/end]\n" in written
    assert "long " * 40 + "\n" in written
    assert "elsewhere" not in written.replace("elsewhere\n", "", 2)


def test_rich_bar_prints_to_a_pipe_what_is_meant_for_it(tmp_path, capsys):
    bar, paper = rich_bar()
    make_trainer(tmp_path, bar, Printing(), max_epochs=1).fit(Net(), loader(2))
    assert capsys.readouterr().out.startswith("[batch] | [1, 2] | [/end]\nlong ")
    assert "batch" not in paper.getvalue()


def test_rich_bar_refuses_a_negative_rate():
    with pytest.raises(MisconfigurationException, match="refresh_rate=-1"):
        RichProgressBar(refresh_rate=-1)


def test_own_bar_can_change_what_is_shown(tmp_path, capsys):
    class Own(PlainProgressBar):
        def get_metrics(self, trainer, pl_module):
            items = super().get_metrics(trainer, pl_module)
            items["lr"] = 0.125
            del items["val_acc"]
            return items

    make_trainer(tmp_path, Own(), max_epochs=1).fit(Net(), loader(2), loader(1))
    err = capsys.readouterr().err
    assert "lr 0.125" in err
    assert "val_acc" not in err


def test_totals_are_those_of_the_run(tmp_path):
    class Totals(ProgressBar):
        def on_train_start(self, trainer, pl_module):
            self.seen = (self.total_train_batches, self.total_val_batches)

        def on_train_end(self, trainer, pl_module):
            self.loader = self.total_val_batches_current_dataloader

    bar = Totals()
    make_trainer(tmp_path, bar, max_epochs=1).fit(Net(), loader(4), loader(3))
    assert bar.seen == (4, 3)
    assert bar.loader == 3


def test_bar_outside_a_run_says_so():
    with pytest.raises(MisconfigurationException, match="no trainer yet"):
        _ = ProgressBar().trainer


def test_loader_changes_are_noticed_once():
    bar = ProgressBar()
    assert [bar.has_dataloader_changed(i) for i in (0, 0, 1, 1)] == [True, False] * 2
    bar.reset_dataloader_idx_tracker()
    assert bar.has_dataloader_changed(1)


@pytest.mark.parametrize(
    ("tty", "kind"), [(True, RichProgressBar), (False, PlainProgressBar)]
)
def test_default_bar_moves_only_on_a_terminal(tty, kind, monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: tty)
    monkeypatch.setattr(sys, "stderr", stream)
    assert type(default_progress_bar()) is kind
