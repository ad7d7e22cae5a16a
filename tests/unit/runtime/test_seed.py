"""Seeding, isolating, saving and restoring random number generators."""

import random

import numpy
import pytest
import torch
from small_runs import loader, quiet, variant

from lightgen_runtime.io import TorchCheckpointIO
from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.seed import (
    collect_rng_states,
    isolate_rng,
    reset_seed,
    seed_everything,
    seed_worker,
    set_rng_states,
)


@pytest.fixture(autouse=True)
def _restore_environment(monkeypatch):
    states = collect_rng_states()
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(name, "")  # so that it is put back as it was
        monkeypatch.delenv(name)
    yield
    set_rng_states(states)


def draw():
    return random.random(), float(numpy.random.rand()), float(torch.rand(()))


def test_seed_everything_repeats_all_generators():
    assert seed_everything(7) == 7
    first = draw()
    seed_everything(7)
    assert draw() == first
    seed_everything(8)
    assert all(a != b for a, b in zip(first, draw(), strict=True))


def test_seed_everything_without_seed_takes_environment_then_zero(monkeypatch):
    assert seed_everything() == 0
    monkeypatch.setenv("PL_GLOBAL_SEED", "31")
    assert seed_everything() == 31


def test_seed_everything_sets_environment_for_child_processes(monkeypatch):
    import os

    seed_everything(5, workers=True)
    assert os.environ["PL_GLOBAL_SEED"] == "5"
    assert os.environ["PL_SEED_WORKERS"] == "1"


def test_seed_everything_says_so_unless_told_not_to(caplog):
    caplog.set_level("INFO", "lightgen_runtime")
    seed_everything(5)
    assert caplog.messages == ["Seed set to 5"]
    seed_everything(6, verbose=False)
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("seed", [-1, 2**32, "no", 1.5, True])
def test_seed_everything_refuses_what_is_no_seed(seed):
    with pytest.raises(MisconfigurationException, match=r"0 to 4294967295"):
        seed_everything(seed)


def test_seed_everything_names_the_variable_that_is_wrong(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "abc")
    with pytest.raises(MisconfigurationException, match=r"PL_GLOBAL_SEED is 'abc'"):
        seed_everything()


def test_reset_seed_repeats_the_last_seed():
    seed_everything(3)
    first = draw()
    reset_seed()
    assert draw() == first


def test_reset_seed_does_nothing_without_a_seed():
    before = collect_rng_states()["torch"]
    reset_seed()
    assert torch.equal(before, collect_rng_states()["torch"])


def test_isolate_rng_leaves_no_trace_even_after_an_error():
    seed_everything(1)
    expected = draw()
    seed_everything(1)

    @isolate_rng()
    def fail_after_drawing():
        draw()
        raise ValueError("after drawing")

    with pytest.raises(ValueError, match="after drawing"):
        fail_after_drawing()
    assert draw() == expected


def test_rng_states_survive_a_checkpoint_file(tmp_path):
    seed_everything(2)
    draw()
    state = {"state_dict": {}, "rng": collect_rng_states()}
    expected = draw()
    TorchCheckpointIO().save_checkpoint(state, tmp_path / "a.ckpt")
    draw()
    loaded = TorchCheckpointIO().load_checkpoint(tmp_path / "a.ckpt")
    set_rng_states(loaded["rng"])
    assert draw() == expected


def test_seed_worker_differs_by_worker_and_rank_and_repeats():
    def drawn(worker_id, rank):
        torch.manual_seed(100 + worker_id)  # as PyTorch does before calling it
        seed_worker(worker_id, rank)
        return draw()

    results = [drawn(worker, rank) for worker in (0, 1) for rank in (0, 1)]
    assert len(set(results)) == 4
    assert drawn(1, 1) == results[3]


def test_workers_of_several_training_loaders_are_seeded_too():
    seed_everything(1, workers=True)
    trainer = quiet()
    trainer.fit(
        variant(training_step=lambda self, batch, _: self(batch["a"]).pow(2).mean()),
        {"a": loader(), "b": loader()},
    )
    loaders = trainer.train_dataloader.values()
    assert [each.worker_init_fn for each in loaders] == [seed_worker] * 2
