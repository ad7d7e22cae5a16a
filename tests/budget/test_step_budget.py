"""What one training step may cost, in counts that are the same on every machine.

Budgets: docs/decisions/0010-step-budget.md. Steps 100 to 200 of a run on one device are
counted; `log_every_n_steps` is set so that none of them is due to report unless a test
says so.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

import lightgen_runtime
from lightgen_runtime import LightningModule, Trainer
from lightgen_runtime.callbacks import (
    Callback,
    EarlyStopping,
    FiniteLoss,
    ModelCheckpoint,
    RichProgressBar,
)

OURS = str(Path(lightgen_runtime.__file__).parent)
FIRST, LAST = 100, 200


class Net(LightningModule):
    def __init__(self, logged: int = 0) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)
        self.logged = [f"metric_{i}" for i in range(logged)]

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.layer(batch).pow(2).mean()
        for name in self.logged:
            self.log(name, loss)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=1e-3)


class Stepped(Net):
    """Overrides stepping, so that the closure step is chosen."""

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)


class EpochLogger(Net):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.layer(batch).pow(2).mean()
        for name in self.logged:
            self.log(name, loss, on_step=True, on_epoch=True)
        return loss


class Counting(Callback):
    """Counts the runtime's own Python calls between two batches of a run.

    Both ends are placed by a loader, so that no hook is needed and none is counted.
    """

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def profile(self, frame: FrameType, event: str, argument: Any) -> None:
        filename = frame.f_code.co_filename
        if event == "call" and filename.startswith(OURS):
            self.calls[f"{Path(filename).name}:{frame.f_code.co_name}"] += 1


class Batches:
    """A sized iterable that calls back before batches FIRST and LAST."""

    def __init__(
        self, at_first: Callable[[], None], at_last: Callable[[], None]
    ) -> None:
        self.moments = {FIRST: at_first, LAST: at_last}
        self.batch = torch.randn(8, 4)

    def __len__(self) -> int:
        return LAST + 20

    def __iter__(self) -> Any:
        for number in range(len(self)):
            if number in self.moments:
                self.moments[number]()
            yield self.batch


def count_calls(module: LightningModule, tmp_path: Path, **flags: Any) -> Counter[str]:
    counting = Counting()
    batches = Batches(
        lambda: sys.setprofile(counting.profile), lambda: sys.setprofile(None)
    )
    train(module, batches, tmp_path, **flags)
    return counting.calls


def train(module: LightningModule, loader: Any, tmp_path: Path, **flags: Any) -> None:
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 10_000,
        "default_root_dir": tmp_path,
    }
    try:
        Trainer(**{**defaults, **flags}).fit(module, loader)
    finally:
        sys.setprofile(None)


def per_step(calls: Counter[str]) -> float:
    return sum(calls.values()) / (LAST - FIRST)


DEFAULTS: dict[str, Any] = {
    "logger": True,
    "enable_checkpointing": True,
    "enable_progress_bar": True,
    "enable_model_summary": True,
}


def test_bare_step_makes_at_most_8_calls(tmp_path: Path) -> None:
    calls = count_calls(Net(), tmp_path)
    assert 0 < per_step(calls) <= 8, calls


def test_accumulating_and_clipping_step_makes_at_most_8_calls(tmp_path: Path) -> None:
    calls = count_calls(
        Net(), tmp_path, accumulate_grad_batches=4, gradient_clip_val=1.0
    )
    assert 0 < per_step(calls) <= 8, calls


def test_step_with_default_callbacks_makes_at_most_12_calls(tmp_path: Path) -> None:
    calls = count_calls(Net(), tmp_path, **DEFAULTS)
    assert 0 < per_step(calls) <= 12, calls


def test_step_with_a_rich_bar_and_all_callbacks_makes_at_most_12_calls(
    tmp_path: Path,
) -> None:
    callbacks = [
        RichProgressBar(),
        FiniteLoss(),
        ModelCheckpoint(),
        EarlyStopping("metric_0"),
    ]
    flags = {**DEFAULTS, "callbacks": callbacks}
    calls = count_calls(Net(1), tmp_path, **flags)
    assert 0 < per_step(calls) <= 12, calls


@pytest.mark.parametrize("module", [Net, EpochLogger])
def test_each_further_log_makes_at_most_2_calls(
    module: type[Net], tmp_path: Path
) -> None:
    one = per_step(count_calls(module(1), tmp_path))
    eleven = per_step(count_calls(module(11), tmp_path))
    assert eleven - one <= 20


def test_step_constructs_no_object_of_ours(tmp_path: Path) -> None:
    calls = count_calls(EpochLogger(3), tmp_path, **DEFAULTS)
    assert not [name for name in calls if name.endswith(":__init__")]


def test_unheard_hook_is_not_called(tmp_path: Path) -> None:
    class Deaf(Callback):
        pass

    silent = count_calls(Net(), tmp_path)
    with_deaf = count_calls(Net(), tmp_path, callbacks=[Deaf(), Deaf(), Deaf()])
    assert with_deaf == silent


@pytest.mark.parametrize("module", [Net, Stepped])
def test_optimizer_steps_within_8_frames_of_fit(
    module: type[Net], tmp_path: Path
) -> None:
    depths: list[int] = []

    class SGD(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            depth, frame = 0, sys._getframe(1)
            while not (
                frame.f_code.co_name == "fit"
                and frame.f_code.co_filename.startswith(OURS)
            ):
                depth += frame.f_code.co_filename.startswith(OURS)
                assert frame.f_back is not None
                frame = frame.f_back
            depths.append(depth + 1)
            return super().step(closure)

    class Deep(module):  # type: ignore[misc,valid-type]
        def configure_optimizers(self) -> Any:
            return SGD(self.parameters(), lr=1e-3)

    train(Deep(), DataLoader(torch.randn(8, 4)), tmp_path)
    assert len(depths) == 8
    assert max(depths) <= 8


class CountSyncs(TorchDispatchMode):
    """Counts reads of tensor values by the host, and copies between devices."""

    def __init__(self) -> None:
        super().__init__()
        self.counting = False
        self.syncs: Counter[str] = Counter()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = function.name()
        reads = (
            "aten::_local_scalar_dense",
            "aten::_to_copy",
            "aten::equal",
            "aten::nonzero",
        )
        if self.counting and name in reads:
            self.syncs[name] += 1
        return function(*args, **(kwargs or {}))


GUARDED: dict[str, Any] = {**DEFAULTS, "callbacks": [FiniteLoss(every_n_steps=10_000)]}


def test_report_without_a_logger_reads_nothing(tmp_path: Path) -> None:
    mode = CountSyncs()
    batches = Batches(
        lambda: setattr(mode, "counting", True),
        lambda: setattr(mode, "counting", False),
    )
    with mode:
        train(Net(3), batches, tmp_path, log_every_n_steps=10)
    assert not mode.syncs


def test_closure_step_makes_at_most_16_calls(tmp_path: Path) -> None:
    calls = count_calls(Stepped(), tmp_path)
    assert 0 < per_step(calls) <= 16, calls


@pytest.mark.parametrize(
    "flags", [{}, DEFAULTS, GUARDED], ids=["bare", "defaults", "finite loss"]
)
def test_step_off_cadence_never_waits_for_the_device(
    flags: dict[str, Any], tmp_path: Path
) -> None:
    mode = CountSyncs()
    batches = Batches(
        lambda: setattr(mode, "counting", True),
        lambda: setattr(mode, "counting", False),
    )
    with mode:
        train(EpochLogger(3), batches, tmp_path, **flags)
    assert not mode.syncs


def test_step_due_to_report_reads_each_metric_once(tmp_path: Path) -> None:
    mode = CountSyncs()
    batches = Batches(
        lambda: setattr(mode, "counting", True),
        lambda: setattr(mode, "counting", False),
    )
    with mode:
        train(Net(3), batches, tmp_path, log_every_n_steps=10, logger=True)
    reports = (LAST - FIRST) // 10
    assert mode.syncs == {"aten::_local_scalar_dense": 3 * reports}
