"""Training with several processes is training with one, on the same global batches."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from processes import Results
from training_cases import OPTIONS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

Run = Callable[[int], Results]
FITS = [
    "plain_fit",
    "compiled_fit",
    "fit_with_options",
    "closure_fit",
    "named_fit",
    "unfreezing_fit",
    "late_fit",
    "thawed_fit",
    "accumulating_fit",
]


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("case", FITS)
def test_weights_are_those_of_one_process(case: str, world: int, results: Run) -> None:
    [alone] = results(1)
    for found in results(world):
        assert found[case]["steps"] == alone[case]["steps"] > 1
        assert found[case]["weights"] == pytest.approx(alone[case]["weights"], abs=1e-5)


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("case", FITS)
def test_replicas_are_equal_to_the_bit_after_every_step(
    case: str, world: int, results: Run
) -> None:
    first, *others = (found[case]["digests"] for found in results(world))
    assert len(set(first)) > 1  # they do change
    assert all(digests == first for digests in others)


@pytest.mark.parametrize("world", [2, 3])
def test_names_of_the_state_are_the_modules_own(world: int, results: Run) -> None:
    for found in results(world):
        assert found["plain_fit"]["keys"] == [
            "first.weight",
            "first.bias",
            "second.weight",
            "second.bias",
        ]


@pytest.mark.parametrize("world", [1, 2])
def test_compiled_step_is_compiled_once_and_whole(world: int, results: Run) -> None:
    for found in results(world):
        assert found["compiled_fit"]["breaks"] == 0
        assert found["compiled_fit"]["graphs"] == 1


def test_gradients_travel_once_a_window(results: Run) -> None:
    for found in results(2):
        # 5 batches an epoch make windows of 2, 2 and 1.
        assert found["accumulating_fit"]["steps"] == 6
        assert found["accumulating_fit"]["exchanges"] == 6


NEAR = {"fp16": 1e-3, "power_sgd": 1e-1, "wrapped": 1e-1}
# A torch built without CUDA refuses the hook "bf16": nothing is rounded there.
if torch.version.cuda is not None:
    NEAR["bf16"] = 1e-2


@pytest.mark.parametrize("option", [*OPTIONS, "find_unused_true", "find_unused_false"])
def test_options_of_ddp_train_as_one_process(option: str, results: Run) -> None:
    [alone] = (found["each_option"][option] for found in results(1))
    first, second = (found["each_option"][option] for found in results(2))
    assert first.keys() == alone.keys()
    for kind, found in first.items():
        assert found["steps"] == alone[kind]["steps"] > 1
        near = pytest.approx(alone[kind]["weights"], abs=NEAR.get(option, 1e-5))
        assert found["weights"] == near
        # Replicas stay the same to the bit, however gradients have travelled.
        assert found["digests"] == second[kind]["digests"]
        assert len(set(found["digests"])) > 1


@pytest.mark.parametrize("kind", ["Gan", "GuideGan", "OneByHand"])
def test_optimizing_by_hand(kind: str, results: Run) -> None:
    """Manual optimization: for GANs, reinforcement learning, several optimizers.

    The guide's GAN with two optimizers, its toggled form, and accumulation by hand.
    """
    [alone] = (found["manual_fits"][kind] for found in results(1))
    first, second = (found["manual_fits"][kind] for found in results(2))
    assert first["weights"] == pytest.approx(alone["weights"], abs=1e-5)
    assert first["steps"] == second["steps"] == alone["steps"] > 1
    if kind == "OneByHand":
        # Weights change where gradients were exchanged, in every second batch.
        assert first["digests"][1::2] == second["digests"][1::2]
    else:
        assert first["digests"] == second["digests"]
    assert len(set(first["digests"])) > 1


def test_buffers_are_rank_zeros_while_evaluating(results: Run) -> None:
    first, second = (found["buffers_in_validation"] for found in results(2))
    assert first == second


def test_forwards_alone_have_no_reducer(results: Run) -> None:
    first, second = (found["averaged_fit"] for found in results(2))
    assert first["weights"] == second["weights"]
    assert first["reducers"] == second["reducers"] == 1
    assert first["seen"] > 0


@pytest.mark.parametrize("world", [1, 2])
def test_batch_normalization_is_synchronized_in_fits(world: int, results: Run) -> None:
    inside = "SyncBatchNorm" if world > 1 else "BatchNorm1d"
    for found in (result["synced_layers"] for result in results(world)):
        assert found["kinds"] == [inside, "BatchNorm1d", "BatchNorm1d"]
        assert found["is_optimized"]
        # What was trained stays, under the names that it had.
        assert found["fit"] == found["validate"] == [pytest.approx(4.0, abs=1), True]
        assert found["fit"][0] != 4.0


def test_parameters_without_gradient(results: Run) -> None:
    first, second = (found["unused_parameters"] for found in results(2))
    assert first["allowed"] == second["allowed"]
    for notes in (first["notes"], second["notes"], first["notes_of_last"]):
        assert "loss: spare.part.weight, spare.part.bias." in notes[0]
        assert "ddp_find_unused_parameters_true" in notes[0]


def test_loss_of_none_is_an_error_not_a_hang(results: Run) -> None:
    for found in results(2):
        assert set(found["loss_of_none"]) == {"Silent", "HalfSilent"}
        for message in found["loss_of_none"].values():
            assert "returned None" in message
            assert "0.0 * loss" in message


@pytest.mark.parametrize("world", [2, 3, 4])
def test_communication(world: int, results: Run) -> None:
    """Main attributes, self.global_rank and self.local_rank: each process has its own."""
    found = [result["communication"] for result in results(world)]
    middle = (world - 1) / 2
    for rank, own in enumerate(found):
        assert own["mean"] == [middle, 1.0]
        assert own["sum"] == [world * middle, world]
        assert own["max"] == [world - 1.0, 1.0]
        assert own["min"] == [0.0, 1.0]
        assert own["whole"] == middle  # the mean of integers is not cut off
        assert own["kept"] is True
        assert own["broadcast"] == {"from": 0}
        assert (own["any"], own["all"]) == (True, False)
        ranks = list(range(world))
        assert own["gathered"] == [[[float(other), 1.0] for other in ranks], ranks]
        assert own["text"] == "text"
        assert own["synced"] is True
        # Each process's sum of squares reaches the leaf.
        assert own["gradient"] == [world * 2.0 * (rank + 1)] * 2
        assert own["ranks"] == [world, rank, rank, 0, rank == 0, rank, rank]
        assert own["prepared"] is (rank == 0)


def test_communication_of_one_process_is_the_identity(results: Run) -> None:
    [own] = (result["communication"] for result in results(1))
    assert own["gathered"] == [[0.0, 1.0], 0]
    assert own["ranks"] == [1, 0, 0, 0, True, 0, 0]
