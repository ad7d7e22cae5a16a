"""Runs that go on inside an epoch with another number of processes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from elastic_cases import COUNT, EPOCH, OfSeveral, loaders, unknown
from processes import ELASTIC
from torch.utils.data import DataLoader
from trial_net import numbered, quiet

from lightgen_runtime.utilities.exceptions import CheckpointMismatchError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

# Which steps an epoch consists of, each with its number of processes.
CHAINS = {
    "2-1": [("a2", ":a2:3", 2), ("", "a2:b1:5", 1)],
    "2-4": [("a2", ":a2:3", 2), ("", "a2:c4:5", 4)],
    "1-2": [("a1", ":a1:3", 1), ("", "a1::", 2)],
    "2-2 of another seed": [("a2", ":a2:3", 2), ("", "a2:::9", 2)],
    "2-1-4": [("a2", ":a2:3", 2), ("b1", "a2:b1:5", 1), ("", "b1::", 4)],
    "2-4-2": [("a2", ":a2:3", 2), ("c4", "a2:c4:5", 4), ("", "c4::", 2)],
}
CASES = list(loaders(1, 0))

Found = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def folder(elastic: Path) -> Path:
    return elastic


@pytest.fixture(scope="module")
def found(folder: Path) -> Found:
    results: Found = {}
    for world, steps in ELASTIC:
        for step in steps:
            name = step.replace(":", "-")
            paths = [folder / f"{name}_{rank}.json" for rank in range(world)]
            results[step] = [json.loads(path.read_text()) for path in paths]
    return results


def read_in(found: Found, chain: str, case: str) -> list[int]:
    """Return what all processes of all runs have read in the interrupted epoch."""
    together: list[int] = []
    for target, step, _ in CHAINS[chain]:
        for own in (result[case] for result in found[step]):
            together += own["at_save"] if target else own["read"][str(EPOCH)]
    return together


# Samples in the epoch.
EPOCHS = {
    "drop_last": 36,
    "limited": 28,
    **dict.fromkeys(("even", "accumulating", "fsdp"), 40),
}
BATCHES_OF_ITS_OWN = 4  # the largest


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("case", CASES)
def test_each_sample_of_the_epoch_is_read_once(
    case: str, chain: str, found: Found
) -> None:
    """However many processes begin, go on with and end the epoch.

    To keep them even, as many samples are read again at the very end as are missing.
    """
    read, processes = read_in(found, chain, case), CHAINS[chain][-1][2]
    assert len(set(read)) == EPOCHS.get(case, COUNT)
    again = Counter(read) - Counter(set(read))
    assert set(again.values()) <= {1}
    most = (processes - 1) * (BATCHES_OF_ITS_OWN if case == "own_batches" else 1)
    assert again.total() <= most


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("case", CASES)
def test_metrics_of_the_epoch_are_over_all_that_was_read(
    case: str, chain: str, found: Found
) -> None:
    """Also what processes have logged that are no longer there."""
    read = read_in(found, chain, case)
    for own in (result[case] for result in found[CHAINS[chain][-1][1]]):
        metrics = own["metrics"][str(EPOCH)]
        assert metrics["mean"] == pytest.approx(sum(read) / len(read))
        assert metrics["sum"] == metrics["total"] == sum(read)
        assert (metrics["most"], metrics["least"]) == (max(read), min(read))


@pytest.mark.parametrize("chain", [c for c in CHAINS if c != "1-2"])
@pytest.mark.parametrize("case", ["even", "accumulating", "fsdp"])
def test_weights_are_those_of_the_same_global_batches(
    case: str, chain: str, found: Found
) -> None:
    """The batch size of each is such that all together are as large as ever.

    `accumulating` is saved inside a window, whose gradients are not lost.
    """
    whole = found[":a2:3"][0][case]
    for own in (result[case] for result in found[CHAINS[chain][-1][1]]):
        assert own["steps"] == whole["steps"]
        assert own["weights"] == pytest.approx(whole["weights"], abs=1e-5)


@pytest.mark.parametrize("chain", CHAINS)
def test_batches_are_numbered_on(chain: str, found: Found) -> None:
    for own in (result["even"] for result in found[CHAINS[chain][-1][1]]):
        first = 3 if len(CHAINS[chain]) == 2 else 5
        assert own["indices"] == list(range(first, 10))


@pytest.mark.parametrize("chain", CHAINS)
def test_next_epoch_is_as_ever(chain: str, found: Found) -> None:
    processes = CHAINS[chain][-1][2]
    shared = [result["shuffled"]["read"]["2"] for result in found[CHAINS[chain][-1][1]]]
    assert {sample for read in shared for sample in read} == set(range(COUNT))
    assert {len(read) for read in shared} == {-(-COUNT // processes)}


def test_what_goes_on_differently_is_said_once(found: Found) -> None:
    first, *others = (result["shuffled"]["said"] for result in found["a2:c4:5"])
    (said,) = first
    assert "4 process(es), batch size 1, where it had 2 and 2: the 26 samples" in said
    assert others == [[]] * 3


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("stream", "Stream is a stream"),
        ("several", "from several loaders"),
        ("own", "not split by the trainer or by a `DistributedSampler`"),
    ],
)
def test_rest_that_is_not_known_is_refused(
    name: str, why: str, found: Found, folder: Path
) -> None:
    trainer = quiet(1, max_epochs=2)
    path = folder / f"unknown_{name}.ckpt"
    with pytest.raises(
        CheckpointMismatchError, match=f"by 2 process.* has 1.*{why}.*`ckpt_path`"
    ):
        trainer.fit(OfSeveral(), unknown(1, 0)[name](), ckpt_path=path)


@pytest.mark.filterwarnings("ignore:.* holds the state of callbacks")
def test_rest_is_refused_where_the_new_data_are_not_known(
    found: Found, folder: Path
) -> None:
    data = {"a": DataLoader(numbered(COUNT), 4)}
    with pytest.raises(CheckpointMismatchError, match="from several loaders"):
        quiet(1, max_epochs=2).fit(
            OfSeveral(), data, ckpt_path=folder / "a2_shuffled.ckpt"
        )


@pytest.mark.filterwarnings("ignore:.* holds the state of callbacks")
@pytest.mark.filterwarnings("ignore:.*the epoch goes on with")
def test_other_batch_size_reads_each_sample_once_too(
    found: Found, folder: Path
) -> None:
    before = found[":a1:3"][0]["shuffled"]["at_save"]
    module = OfSeveral()
    loader = DataLoader(numbered(COUNT), 5, shuffle=True)
    quiet(1, max_epochs=2).fit(module, loader, ckpt_path=folder / "a1_shuffled.ckpt")
    assert sorted(before + module.read[EPOCH]) == list(range(COUNT))
