"""Who reads what: all of the training data, and each evaluated sample once."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

import pytest
from processes import Results

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

Run = Callable[[int], Results]
SIZES = [(count, size) for count in range(14) for size in (1, 2)]


@pytest.mark.parametrize("world", [2, 3, 4])
def test_every_sample_is_evaluated_exactly_once(world: int, results: Run) -> None:
    """Best practices, placement of validation: each sample is evaluated exactly once.

    From no sample to more than three for each process: uneven and empty shares included.
    """
    [alone] = (found["exact_evaluation"] for found in results(1))
    shared = [found["exact_evaluation"] for found in results(world)]
    for count, size in SIZES:
        case = f"{count}/{size}"
        if count == 0:
            assert all(found[case] == [True] * 3 for found in [alone, *shared])
            continue
        seen = sorted(sample for found in shared for sample in found[case]["seen"])
        assert seen == list(range(count))
        for found in shared:
            validated, seen_again = found[case]["validated"]
            assert seen_again == found[case]["seen"]
            assert validated.items() <= found[case]["metrics"].items()
            metrics = dict(found[case]["metrics"])
            assert metrics.pop("at_end") == sum(range(world))
            assert metrics["count"] == count
            assert metrics["mean"] == (count - 1) / 2
            assert metrics.items() <= alone[case]["metrics"].items()
            # All of them, in the data's order, in the batches of one process.
            assert found[case]["predicted"] == alone[case]["predicted"]
            assert found[case]["gathered"] == alone[case]["predicted"]
        batches = [found[case]["batches"][0] for found in shared]
        assert sum(batches) == ceil(count / size)
        assert max(batches) - min(batches) <= 1


@pytest.mark.parametrize("world", [2, 3])
def test_predictions_of_data_that_the_user_has_split(world: int, results: Run) -> None:
    """Nobody can know how: the first process's, with what to do instead."""
    found = [result["predictions_of_a_split_stream"] for result in results(world)]
    for rank, (everything, gathered, said) in enumerate(found):
        assert everything == [[0], [world]]
        assert gathered == [[number] for number in range(2 * world)]
        assert len(said) == (rank == 0)


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_training_covers_data_of_every_size(world: int, results: Run) -> None:
    """Down to less than a sample for each; data without any are refused, as by one."""
    shared = [found["training_of_every_size"] for found in results(world)]
    for count in range(3 * world + 2):
        for size in (1, 2):
            read = [found[f"{count}/{size}"] for found in shared]
            if count == 0:
                assert read == [True] * world
                continue
            assert {sample for own in read for sample in own} == set(range(count))
            assert {len(own) for own in read} == {ceil(count / world)}


def test_limits_count_batches_of_a_process(results: Run) -> None:
    first, second = (found["limited_evaluation"] for found in results(2))
    # 2 batches each; half of the 3 that the larger share has; none.
    assert first == [[0, 2], [0], []]
    assert second == [[1, 3], [1], []]


def _epochs(seen: list[int]) -> list[list[int]]:
    epochs: list[list[int]] = []
    for sample in seen:
        if sample == -1:
            epochs.append([])
        else:
            epochs[-1].append(sample)
    return epochs


SHUFFLED = {"shuffled", "drop_last", "own_class", "weighted", "unbatched", "workers"}


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize(
    "name", ["in_order", "own_batches", *sorted(SHUFFLED - {"drop_last"})]
)
def test_training_reads_everything_as_much_in_each_process(
    name: str, world: int, results: Run
) -> None:
    """Best practices, distributed training: `DataLoader(dataset, shuffle=True)` is split."""
    shared = [found["split_loaders"][name] for found in results(world)]
    assert len({found["batches"] for found in shared}) == 1
    assert len({found["estimated"] for found in shared}) == 1
    assert all(found["untouched"] for found in shared)
    both = [_epochs(found["seen"]) for found in shared]
    for epoch in range(2):
        together = [sample for epochs in both for sample in epochs[epoch]]
        assert set(together) == set(range(10))
        if name != "own_batches":  # whose batches, not samples, come out even
            assert len(together) == ceil(10 / world) * world
    if name in SHUFFLED:
        assert both[0][0] != both[0][1]  # another order in each epoch
    evaluated = sorted(s for found in shared for s in found["evaluated"])
    assert evaluated == list(range(10))


def test_loader_keeps_its_class_and_attributes(results: Run) -> None:
    for found in results(2):
        loaders = found["split_loaders"]
        assert loaders["own_class"]["kind"] == "OwnLoader"
        assert loaders["own_class"]["name"] == "mine"
        assert loaders["shuffled"]["sampler"] == "DistributedSampler"


def test_own_batch_sampler_hears_of_epochs(results: Run) -> None:
    for found in results(2):
        assert found["split_loaders"]["own_batches"]["epochs"] == [0, 1]


def test_number_of_samples_of_a_sampler_is_kept(results: Run) -> None:
    shared = [_epochs(found["split_loaders"]["part"]["seen"]) for found in results(2)]
    first_epoch = shared[0][0] + shared[1][0]
    assert len(first_epoch) == len(set(first_epoch)) == 6


def test_drop_last_drops_the_rest_of_each_process(results: Run) -> None:
    for found in results(2):
        assert found["split_loaders"]["drop_last"]["batches"] == 1


def test_what_the_user_has_split_is_left_alone(results: Run) -> None:
    for rank, found in enumerate(results(2)):
        own = found["split_loaders"]["own_split"]
        # Both samplers give this process the same half, in the same order.
        assert own["evaluated"] == _epochs(own["seen"])[0]
        assert len(set(own["evaluated"])) == 5
        assert own["batches"] == 3
        iterable = found["split_loaders"]["iterable"]
        assert _epochs(iterable["seen"])[0] == iterable["evaluated"] == [0, 1, 2, 3]
        unsplit = found["unsplit_loaders"]
        assert unsplit["unasked"] == [[-1, 0, 1, 2, 3], [0, 1, 2, 3]]
        # Overfitting reads the same batches in order, split as well.
        samples = [0, 2, 4, 6] if rank == 0 else [1, 3, 5, 7]
        assert unsplit["overfit"][0] == [-1, *samples]
        assert unsplit["overfit"][1] == ([0, 1, 4, 5] if rank == 0 else [2, 3, 6, 7])


def test_several_loaders_are_split_each(results: Run) -> None:
    found = [result["unsplit_loaders"]["several"][1:] for result in results(2)]
    assert found[0] == [[[0, 2], [0, 2]], [[4, 6], [0, 2]]]
    assert found[1] == [[[1, 3], [1, 3]], [[5, 7], [1, 3]]]


def test_sampler_without_length_is_refused_with_the_reason(results: Run) -> None:
    message = results(2)[0]["unsplit_loaders"]["no_length"]
    assert "NoLength" in message
    assert "use_distributed_sampler=False" in message


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("name", ["no length", "length", "either"])
def test_epoch_ends_for_all_where_one_process_has_no_further_batch(
    name: str, world: int, results: Run
) -> None:
    shared = [found["uneven_training_data"][name] for found in results(world)]
    for found in shared:
        assert found["batches"] == [3, 3]  # of 3, 5, ...
        assert found["steps"] == 4  # the last batch closes its window
        assert found["validated_after"] == 6
        assert found["weights"] == shared[0]["weights"]
    said = shared[0]["said"]
    assert said
    assert all("ends for all" in text for text in said)
    assert [found["said"] for found in shared[1:]] == [[]] * (world - 1)
