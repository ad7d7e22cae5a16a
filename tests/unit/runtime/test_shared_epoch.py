"""Going on inside an epoch that is shared out anew, as far as one process shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import Small, quiet
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, Sampler

from lightgen_runtime.callbacks import Callback
from lightgen_runtime.utilities.exceptions import (
    CheckpointFormatError,
    CheckpointMismatchError,
    MisconfigurationException,
)
from lightgen_runtime.utilities.in_turn import in_turn

COUNT = 12


def flat(batches: list[list[float]]) -> list[float]:
    return [sample for batch in batches for sample in batch]


class Saves(Callback):
    """Saves behind the third batch of the first epoch."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.fit_loop.total_batch_idx == 2:
            trainer.save_checkpoint(self.path)


def data(size: int, count: int = COUNT, **more: Any) -> DataLoader[Any]:
    numbers = torch.arange(float(count)).unsqueeze(1).expand(count, 4)
    return DataLoader(list(numbers), size, **more)


class Reading(Small):
    def __init__(self) -> None:
        super().__init__()
        self.read: list[list[float]] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.read.append(batch[:, 0].tolist())
        return super().training_step(batch, batch_idx)


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, list[float]]:
    """Return a checkpoint behind three batches of 2, and what they held."""
    path, module = tmp_path / "inside.ckpt", Reading()
    quiet(callbacks=Saves(path)).fit(module, data(2, shuffle=True))
    return path, flat(module.read[:3])


def go_on(path: Path, loader: Any) -> list[list[float]]:
    module = Reading()
    trainer = quiet()
    trainer.fit(module, loader, ckpt_path=path)
    assert trainer.current_epoch == 1
    return module.read


@pytest.mark.parametrize(("size", "batches"), [(1, 6), (4, 2), (100, 1)])
def test_other_batch_size_reads_what_is_left(
    saved: tuple[Path, list[float]], size: int, batches: int
) -> None:
    path, before = saved
    with pytest.warns(UserWarning, match=f"batch size {size}, where it had 1 and 2"):
        read = go_on(path, data(size, shuffle=True))
    assert len(read) == batches
    assert sorted(before + flat(read)) == list(range(COUNT))


def test_rest_that_fills_no_batch_is_filled_up(
    saved: tuple[Path, list[float]],
) -> None:
    """`drop_last` leaves no epoch without a last batch, which ends it."""
    path, before = saved
    with pytest.warns(UserWarning, match="6 samples that are left"):
        [read] = go_on(path, data(8, shuffle=True, drop_last=True))
    assert len(read) == 8
    assert set(before) | set(read) == set(range(COUNT))
    assert not set(before) & set(read)


class Own(BatchSampler):
    """A batch sampler of one's own."""


def in_order() -> DataLoader[Any]:
    return data(2)


def in_own_batches() -> DataLoader[Any]:
    numbers = range(COUNT)
    return data(1, batch_sampler=Own(RandomSampler(numbers), 2, drop_last=False))


@pytest.mark.parametrize("other", [in_order, in_own_batches])
def test_another_sampler_is_told(
    other: Callable[[], DataLoader[Any]], saved: tuple[Path, list[float]]
) -> None:
    path, _ = saved
    with pytest.warns(UserWarning, match="drawn by RandomSampler, and .* draws now"):
        assert len(go_on(path, other())) == 3


def test_another_sampler_in_other_processes_is_refused(
    saved: tuple[Path, list[float]],
) -> None:
    path, _ = saved
    checkpoint = torch.load(path)
    checkpoint["lightgen"]["share"]["processes"] = 2
    torch.save(checkpoint, path)
    with pytest.raises(CheckpointMismatchError, match="and SequentialSampler draws"):
        go_on(path, in_order())


def test_workers_with_an_order_of_their_own_are_told(
    saved: tuple[Path, list[float]],
) -> None:
    loader = data(2, shuffle=True, num_workers=2, in_order=False)
    with pytest.warns(UserWarning, match="leave out `in_order=False`"):
        go_on(saved[0], loader)


class OneByOne(Sampler[int]):
    """Draws each sample when it is asked for, from the generator that training uses."""

    def __len__(self) -> int:
        return COUNT

    def __iter__(self) -> Iterator[int]:
        left = list(range(COUNT))
        while left:
            yield left.pop(int(torch.randint(len(left), ())))


class Noisy(Reading):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        torch.rand(3)
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("kind", [Reading, Noisy])
def test_order_that_cannot_be_drawn_again_is_refused(
    kind: type[Reading], tmp_path: Path
) -> None:
    """Whether it can shows in the indices that were drawn last."""
    path, module = tmp_path / "inside.ckpt", kind()
    torch.manual_seed(1)
    quiet(callbacks=Saves(path)).fit(module, data(2, sampler=OneByOne()))
    if kind is Noisy:
        with pytest.raises(CheckpointMismatchError, match="OneByOne draws in another"):
            go_on(path, data(3, sampler=OneByOne()))
        return
    with pytest.warns(UserWarning, match="batch size 3, where it had 1 and 2"):
        read = go_on(path, data(3, sampler=OneByOne()))
    assert sorted(flat(module.read[:3]) + flat(read)) == list(range(COUNT))


def test_interval_of_validation_is_one_of_whole_epochs(
    saved: tuple[Path, list[float]],
) -> None:
    """The rest of an epoch may have fewer batches."""
    path, _ = saved
    loaders = {"train_dataloaders": data(1, shuffle=True), "val_dataloaders": data(1)}
    trainer = quiet(val_check_interval=COUNT)
    with pytest.warns(UserWarning, match="6 samples that are left"):
        trainer.fit(Reading(), **loaders, ckpt_path=path)
    assert trainer.current_epoch == 1


def test_epoch_that_was_read_is_shared_by_those_that_end_it(tmp_path: Path) -> None:
    class AtEnd(Callback):
        def on_train_epoch_end(self, trainer: Any, *_: Any) -> None:
            trainer.save_checkpoint(tmp_path / "end.ckpt")

    path = tmp_path / "inside.ckpt"
    quiet(callbacks=Saves(path)).fit(Reading(), data(4))
    checkpoint = torch.load(path)
    checkpoint["lightgen"]["share"]["processes"] = 2
    torch.save(checkpoint, path)
    quiet(callbacks=AtEnd()).fit(Reading(), data(4), ckpt_path=path)
    saved = torch.load(tmp_path / "end.ckpt")
    assert saved["lightgen"]["share"]["processes"] == 1


def test_data_that_have_become_fewer_are_refused(
    saved: tuple[Path, list[float]],
) -> None:
    path, _ = saved
    with pytest.raises(CheckpointMismatchError, match="has 5 samples, and 6 were read"):
        go_on(path, data(1, count=5, shuffle=True))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("read", -1),
        ("per_batch", "2"),
        ("processes", None),
        ("units", 2.5),
        ("seed", "x"),
        ("drawn_by", None),
        ("begun", {}),
    ],
)
def test_record_that_no_run_has_written_is_refused(
    saved: tuple[Path, list[float]], key: str, value: Any
) -> None:
    path, _ = saved
    checkpoint = torch.load(path)
    checkpoint["lightgen"]["share"][key] = value
    torch.save(checkpoint, path)
    with pytest.raises(CheckpointFormatError, match=r"lightgen\.share"):
        go_on(path, data(1, shuffle=True))


def test_word_for_predictions_is_checked() -> None:
    with pytest.raises(MisconfigurationException, match="Did you mean 'all'"):
        quiet().predict(Small(), data(2), return_predictions="al")


def test_all_predictions_of_one_process_are_its_own() -> None:
    module, trainer = Small(), quiet()
    own = trainer.predict(module, data(2))
    together = trainer.predict(module, data(2), return_predictions="all")
    assert own is not None
    assert together is not None
    assert torch.equal(torch.stack(own), torch.stack(together))


def test_parts_are_put_together_in_turn() -> None:
    assert in_turn([]) == in_turn([[], []]) == []
    assert in_turn([[None, 2], [], [1]]) == [None, 1, 2]
