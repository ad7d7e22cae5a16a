"""A resumed fit reads on where the former one stood: the same batches, and no others."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from resuming import Interrupt, assert_equal
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Subset,
    WeightedRandomSampler,
)

from lightgen_runtime import Callback, LightningModule, Trainer, seed_everything
from lightgen_runtime.loops import own_generators
from lightgen_runtime.loops.feed import Feed
from lightgen_runtime.utilities import CombinedLoader

ROWS, SIZE = 14, 2  # 7 batches an epoch


class Augmented(Dataset[torch.Tensor]):
    """Each row is its number and what three generators draw when it is read."""

    def __init__(self, rows: int = ROWS) -> None:
        self.rows = rows
        self.read: list[int] = []

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, index: int) -> torch.Tensor:
        self.read.append(index)
        drawn = [random.random(), numpy.random.randn(), torch.rand(()).item()]
        return torch.tensor([float(index), *drawn])


class Model(LightningModule):
    """Records what it is given, and draws random numbers itself."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)
        self.own_generator = torch.Generator().manual_seed(7)
        self.seen: list[Any] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.seen.append((self.current_epoch, batch_idx, batch))
        first = batch
        while not isinstance(first, torch.Tensor):
            first = first["a"] if isinstance(first, dict) else first[0]
        noise = torch.rand(()) + random.random() + numpy.random.rand()
        noise = noise + torch.rand((), generator=self.own_generator)
        return self.layer(first).pow(2).mean() * noise

    def validation_step(
        self, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if not self.trainer.sanity_checking:
            self.seen.append(("val", batch_idx, batch))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


Make = Callable[[], Any]


def fit(
    make: Make,
    callbacks: list[Callback],
    path: Path | None = None,
    validate: Make | None = None,
    **flags: Any,
) -> tuple[Model, Any]:
    module, loader = Model(), make()
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        callbacks=callbacks,
        enable_checkpointing=bool(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=2,
        **{"max_epochs": 3, **flags},
    )
    val_loader = None if validate is None else validate()
    trainer.fit(module, loader, val_loader, ckpt_path=path)
    return module, loader


def assert_goes_on(
    make: Make, path: Path, moments: list[tuple[str, int]], **arguments: Any
) -> Any:
    """Compare what is read behind each moment, and the weights, with a whole fit's."""
    seed_workers = arguments.pop("seed_workers", False)
    seed_everything(3, workers=seed_workers, verbose=False)
    whole, _ = fit(make, [], **arguments)
    loader: Any = None
    for moment in moments:
        seed_everything(3, workers=seed_workers, verbose=False)
        with pytest.raises(KeyboardInterrupt):
            fit(make, [Interrupt(*moment, path)], **arguments)
        seed_everything(99, workers=seed_workers, verbose=False)
        resumed, loader = fit(make, [], path, **arguments)
        rest = whole.seen[len(whole.seen) - len(resumed.seen) :]
        assert_equal(resumed.seen, rest, f"{moment}")
        weights = [dict(module.state_dict()) for module in (resumed, whole)]
        assert_equal(*weights, f"weights after {moment}")
    return loader


def after_batches(*numbers: int) -> list[tuple[str, int]]:
    return [("on_train_batch_end", number) for number in numbers]


def augmented(**kwargs: Any) -> DataLoader[Any]:
    return DataLoader(Augmented(), **{"batch_size": SIZE, "shuffle": True, **kwargs})


class OwnGenerators(Augmented):
    """Draws from generators of its own, one of them in a list of transforms."""

    def __init__(self) -> None:
        super().__init__()
        self.draws = [numpy.random.default_rng(2), numpy.random.RandomState(3)]
        self.more = {"a": random.Random(4), "b": torch.Generator().manual_seed(5)}

    def __getitem__(self, index: int) -> torch.Tensor:
        by_numpy = [draw.normal() for draw in self.draws]
        by_torch = torch.rand((), generator=self.more["b"]).item()
        drawn = [sum(by_numpy), self.more["a"].random(), by_torch]
        return torch.tensor([float(index), *drawn])


def by_batch_sampler() -> DataLoader[Any]:
    dataset = Augmented()
    sampler = BatchSampler(RandomSampler(dataset), 4, drop_last=True)
    return DataLoader(dataset, batch_sampler=sampler)


def weighted() -> DataLoader[Any]:
    sampler = WeightedRandomSampler([float(i + 1) for i in range(ROWS)], 40)
    return augmented(shuffle=False, sampler=sampler)


def drawn_again() -> DataLoader[Any]:
    sampler = RandomSampler(Augmented(), replacement=True, num_samples=90)
    return augmented(shuffle=False, sampler=sampler)


LOADERS: dict[str, Make] = {
    "shuffled": augmented,
    "own generator": lambda: augmented(generator=torch.Generator().manual_seed(4)),
    "batch sampler": by_batch_sampler,
    "weighted": weighted,
    "with replacement": drawn_again,
    "samples as batches": lambda: augmented(batch_size=None, shuffle=False),
    "subset": lambda: DataLoader(Subset(Augmented(), range(3, 13)), 2, shuffle=True),
}
WORKER_LOADERS: dict[str, Make] = {
    "two": lambda: augmented(num_workers=2),
    "three": lambda: augmented(num_workers=3, prefetch_factor=1),
    "persistent": lambda: augmented(num_workers=2, persistent_workers=True),
    "own generator": lambda: augmented(
        num_workers=2, generator=torch.Generator().manual_seed(4)
    ),
    "persistent, own generator": lambda: augmented(
        num_workers=2,
        persistent_workers=True,
        generator=torch.Generator().manual_seed(4),
    ),
    "samples as batches": lambda: augmented(
        num_workers=2, batch_size=None, shuffle=False
    ),
}


@pytest.mark.parametrize("name", LOADERS)
def test_indices_are_skipped_and_no_sample_is_read_again(
    name: str, tmp_path: Path
) -> None:
    moments = [*after_batches(1, 5, 9), ("on_train_epoch_end", 1)]
    loader = assert_goes_on(LOADERS[name], tmp_path / "x.ckpt", moments)
    seed_everything(3, verbose=False)
    with pytest.raises(KeyboardInterrupt):
        fit(LOADERS[name], [Interrupt("on_train_batch_end", 5, tmp_path / "x.ckpt")])
    module, loader = fit(LOADERS[name], [], tmp_path / "x.ckpt", max_epochs=1)
    dataset = getattr(loader.dataset, "dataset", loader.dataset)
    given = sum(batch.numel() // 4 for _, _, batch in module.seen)
    assert len(dataset.read) == given


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker")
@pytest.mark.parametrize("name", WORKER_LOADERS)
def test_workers_go_on_with_their_random_numbers(name: str, tmp_path: Path) -> None:
    make, moments = WORKER_LOADERS[name], after_batches(4, 9)
    if name.startswith("persistent"):
        moments[1] = ("on_train_epoch_end", 1)
    assert_goes_on(make, tmp_path / "x.ckpt", moments, max_epochs=2)


@pytest.mark.parametrize("workers", [0, 2])
def test_generators_of_the_dataset_go_on(workers: int, tmp_path: Path) -> None:
    def make() -> Any:
        return DataLoader(OwnGenerators(), SIZE, shuffle=True, num_workers=workers)

    moments = after_batches(5, 9) if workers == 0 else after_batches(5)
    assert_goes_on(make, tmp_path / "x.ckpt", moments, max_epochs=2)


@pytest.mark.parametrize(
    "moment", [("on_train_epoch_end", 1), ("on_train_batch_end", 9)]
)
def test_generators_in_persistent_workers_are_told_of(
    moment: tuple[str, int], tmp_path: Path
) -> None:
    def make() -> Any:
        return DataLoader(OwnGenerators(), SIZE, num_workers=1, persistent_workers=True)

    path = tmp_path / "x.ckpt"
    with pytest.raises(KeyboardInterrupt):
        fit(make, [Interrupt(*moment, path)], max_epochs=2)
    with pytest.warns(UserWarning, match="random generators of its own"):
        fit(make, [], path, max_epochs=2)


def test_persistent_workers_that_a_limit_cuts_short_are_told_of(tmp_path: Path) -> None:
    path, make = tmp_path / "x.ckpt", WORKER_LOADERS["persistent"]
    flags = {"limit_train_batches": 5, "max_epochs": 2}
    for moment in [("on_train_epoch_end", 1), ("on_train_batch_end", 6)]:
        with pytest.raises(KeyboardInterrupt):
            fit(make, [Interrupt(*moment, path)], **flags)
        with pytest.warns(
            UserWarning, match="a limit on the number of batches cut its"
        ):
            fit(make, [], path, **flags)


def test_few_batches_are_loaded_again_by_workers(tmp_path: Path) -> None:
    make, path = WORKER_LOADERS["two"], tmp_path / "x.ckpt"
    with pytest.raises(KeyboardInterrupt):
        fit(make, [Interrupt("on_train_batch_end", 5, path)])
    counted = tmp_path / "counted"

    class Counted(Augmented):
        def __getitem__(self, index: int) -> torch.Tensor:
            with counted.open("a") as stream:
                stream.write("x")
            return super().__getitem__(index)

    fit(
        lambda: DataLoader(Counted(), SIZE, True, num_workers=2), [], path, max_epochs=1
    )
    # Two batches are left; of the five before, worker 0 loads its last one again.
    assert len(counted.read_text()) == 3 * SIZE


def test_seeded_workers_begin_and_go_on(tmp_path: Path) -> None:
    make, path = WORKER_LOADERS["two"], tmp_path / "x.ckpt"
    assert_goes_on(make, path, after_batches(3), max_epochs=1, seed_workers=True)


def combined(mode: str) -> Make:
    def make() -> Any:
        short = DataLoader(Augmented(6), SIZE, shuffle=True)
        return CombinedLoader({"a": augmented(), "b": short}, mode)

    return make


@pytest.mark.parametrize("mode", ["min_size", "max_size", "max_size_cycle"])
def test_each_loader_of_a_combination_goes_on(mode: str, tmp_path: Path) -> None:
    # The short one begins anew at batches 3 and 6 of an epoch, if it does.
    moments = [*after_batches(2, 3, 4, 9), ("on_train_epoch_end", 1)]
    assert_goes_on(combined(mode), tmp_path / "x.ckpt", moments)


def test_loaders_of_a_combination_keep_their_workers_numbers(tmp_path: Path) -> None:
    def make() -> Any:
        return [augmented(num_workers=1), DataLoader(Augmented(6), SIZE, True)]

    assert_goes_on(make, tmp_path / "x.ckpt", after_batches(4), max_epochs=1)


class Lazy(torch.utils.data.Sampler[int]):
    """Draws each index from the global generator, when it is asked for."""

    def __len__(self) -> int:
        return ROWS

    def __iter__(self) -> Iterator[int]:
        return (int(torch.randint(ROWS, ())) for _ in range(ROWS))


class Resumable(Lazy):
    """Draws each index from a generator of its own, whose state it tells."""

    def __init__(self) -> None:
        self.mine = torch.Generator().manual_seed(8)

    def __iter__(self) -> Iterator[int]:
        draw = torch.randint
        return (int(draw(ROWS, (), generator=self.mine)) for _ in range(ROWS))

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.mine.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.mine.set_state(state["generator"])


@pytest.mark.parametrize("workers", [0, 2])
def test_order_that_cannot_be_drawn_again_is_told_of(
    workers: int, tmp_path: Path
) -> None:
    path = tmp_path / "x.ckpt"

    def make() -> Any:
        return augmented(shuffle=False, sampler=Lazy(), num_workers=workers)

    with pytest.raises(KeyboardInterrupt):
        fit(make, [Interrupt("on_train_batch_end", 6, path)])
    with pytest.warns(UserWarning, match=r"order of the training.*Lazy.*`generator`"):
        fit(make, [], path, max_epochs=1)


@pytest.mark.parametrize("workers", [0, 2])
def test_sampler_with_a_state_goes_on(workers: int, tmp_path: Path) -> None:
    def make() -> Any:
        return augmented(shuffle=False, sampler=Resumable(), num_workers=workers)

    moments = [*after_batches(3, 9), ("on_train_epoch_end", 1)]
    assert_goes_on(make, tmp_path / "x.ckpt", moments[workers // 2 :], max_epochs=2)


class Stream(IterableDataset[torch.Tensor]):
    """Rows without a length, augmented."""

    def __init__(self) -> None:
        self.position = 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        while self.position < ROWS:
            self.position += 1
            yield torch.tensor([float(self.position), *torch.rand(3).tolist()])
        self.position = 0


class ResumableStream(Stream):
    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = state["position"]


class SizedStream(ResumableStream):
    def __len__(self) -> int:
        return ROWS


class Pair:
    """A batch that no checkpoint can hold."""

    def __init__(self, rows: list[torch.Tensor]) -> None:
        self.rows = torch.stack(rows)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.rows[index]


class ResumableLoader:
    """Counts what it has given, as loaders do that keep a state."""

    def __init__(self) -> None:
        self.given, self.begin = 0, 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        self.given, self.begin = self.begin, 0
        while self.given < 7:
            self.given += 1
            yield torch.tensor([[float(self.given), *torch.rand(3).tolist()]])

    def state_dict(self) -> dict[str, int]:
        return {"given": self.given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.begin = state["given"]


STREAMS: dict[str, Make] = {
    "dataset": lambda: DataLoader(ResumableStream(), SIZE),
    "loader": ResumableLoader,
}


@pytest.mark.parametrize("name", STREAMS)
def test_stream_with_a_state_goes_on(name: str, tmp_path: Path) -> None:
    moments = [*after_batches(1, 3, 7, 9), ("on_train_epoch_end", 1)]
    assert_goes_on(STREAMS[name], tmp_path / "x.ckpt", moments)


def test_stream_with_a_length_goes_on(tmp_path: Path) -> None:
    def make() -> Any:
        return DataLoader(SizedStream(), SIZE)

    path = tmp_path / "x.ckpt"
    assert_goes_on(make, path, after_batches(1, 3), max_epochs=1)


def test_batch_that_cannot_be_kept_is_read_again(tmp_path: Path) -> None:
    path, make = tmp_path / "x.ckpt", lambda: DataLoader(
        Stream2(), SIZE, collate_fn=Pair
    )

    class Stream2(ResumableStream):
        def __iter__(self) -> Iterator[torch.Tensor]:
            return (row.round() for row in super().__iter__())

    whole, _ = fit(make, [], max_epochs=1)
    with pytest.raises(KeyboardInterrupt):
        fit(make, [Interrupt("on_train_batch_end", 3, path)], max_epochs=1)
    resumed, _ = fit(make, [], path, max_epochs=1)
    numbers = [
        [pair.rows[:, 0].tolist() for *_, pair in m.seen] for m in (resumed, whole)
    ]
    assert numbers[0] == numbers[1][3:]


def test_stream_without_a_state_is_read_again_and_told_of(tmp_path: Path) -> None:
    path, make = tmp_path / "x.ckpt", lambda: DataLoader(Stream(), SIZE)
    with pytest.raises(KeyboardInterrupt):
        fit(make, [Interrupt("on_train_batch_end", 3, path)])
    with pytest.warns(UserWarning, match=r"first 4 .*DataLoader\(Stream\).*read again"):
        module, _ = fit(make, [], path, max_epochs=1)
    assert [int(batch[0, 0]) for *_, batch in module.seen] == [7, 9, 11, 13]


def test_generator_that_is_used_up_is_told_of(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    batches = [torch.rand(2, 4) for _ in range(7)]
    with pytest.raises(KeyboardInterrupt):
        fit(lambda: iter(batches), [Interrupt("on_train_batch_end", 3, path)])
    used = iter(batches[:1])
    with (
        pytest.warns(UserWarning, match="first 4 batches of list_iterator"),
        pytest.warns(
            UserWarning, match="ended after 1 of the 4 .*cannot be read again"
        ),
    ):
        fit(lambda: used, [], path, max_epochs=1)


def test_batches_in_memory_are_gone_on_with_silently(tmp_path: Path) -> None:
    batches = torch.rand(7, 2, 4)
    assert_goes_on(lambda: batches, tmp_path / "x.ckpt", after_batches(3))


def test_other_number_of_workers_is_told_of(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    with pytest.raises(KeyboardInterrupt):
        fit(WORKER_LOADERS["two"], [Interrupt("on_train_batch_end", 3, path)])
    with pytest.warns(UserWarning, match="num_workers=2, and it has 0 now"):
        module, _ = fit(augmented, [], path, max_epochs=1)
    assert len(module.seen) == 4


def test_file_without_a_position_is_gone_on_from(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    with pytest.raises(KeyboardInterrupt):
        fit(augmented, [Interrupt("on_train_batch_end", 3, path)])
    seed_everything(3, verbose=False)
    content = torch.load(path, weights_only=True)
    content["lightgen"]["format"] = 1
    for key in ("loader", "loggers"):
        del content["lightgen"][key]
    torch.save(content, path)
    module, loader = fit(augmented, [], path, max_epochs=1)
    assert [number for _, number, _ in module.seen] == [3, 4, 5, 6]
    assert len(loader.dataset.read) == ROWS


VALIDATION: dict[str, Make] = {
    "shuffled": lambda: augmented(),
    "own generator": lambda: augmented(generator=torch.Generator().manual_seed(4)),
    "workers": lambda: augmented(num_workers=1),
    "persistent": lambda: augmented(num_workers=1, persistent_workers=True),
    "two": lambda: [augmented(), DataLoader(Augmented(6), SIZE)],
    "stream": lambda: DataLoader(ResumableStream(), SIZE),
}


@pytest.mark.parametrize("name", VALIDATION)
def test_validation_goes_on_behind_its_batch(name: str, tmp_path: Path) -> None:
    moments = [("on_validation_batch_end", 3), ("on_train_batch_end", 8)]
    moments += [("on_validation_batch_end", 9)] * (name != "workers")
    assert_goes_on(
        augmented,
        tmp_path / "x.ckpt",
        moments,
        validate=VALIDATION[name],
        val_check_interval=4,
        max_epochs=2,
    )


class Endless(torch.utils.data.Sampler[int]):
    """Draws as many indices as there are, without saying how many."""

    def __iter__(self) -> Iterator[int]:
        return iter(range(ROWS))


class Wrapped:
    """A batch of a class that no checkpoint holds."""

    def __init__(self, rows: list[torch.Tensor]) -> None:
        self.rows = torch.stack(rows)


def test_generators_are_searched_for_once_a_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searched: list[Any] = []
    original = own_generators.generators_in

    def search(owner: Any) -> list[Any]:
        searched.append(owner)
        return original(owner)

    monkeypatch.setattr(own_generators, "generators_in", search)
    loader = DataLoader(
        Augmented(), batch_size=SIZE, sampler=Endless(), collate_fn=Wrapped
    )
    feed = Feed(loader, float("inf"), None)
    for passes in (1, 2):
        assert len(list(feed.batches(feed.open()))) == ROWS // SIZE
        feed.end_pass()
        assert len(searched) == passes
