"""What all processes hold for true: metrics, when to stop, which checkpoint is best."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from agreement_cases import Noisy
from processes import Results
from torch.utils.data import DataLoader
from trial_net import numbered, quiet

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

Run = Callable[[int], Results]


@pytest.mark.parametrize("world", [2, 3, 4])
def test_epoch_values_are_reduced_over_all_processes(world: int, results: Run) -> None:
    """Best practices, aggregation of metrics: `self.log("val_loss", loss)` is enough.

    Without any argument, weighted by samples, whatever each process has had of them.
    """
    for found in (result["metrics"] for result in results(world)):
        final = found["final"]
        assert final["val/dataloader_idx_0"] == 5.0  # of the samples 0 to 10
        assert final["val/dataloader_idx_1"] == 0.0  # one sample, in one process
        assert final["plain"] == (8 * world - 1) / 2
        assert final["both_epoch"] == final["both"] == final["plain"]
        assert final["val_end"] == final["at_end"] == sum(range(world)) / world
        # The sum of what one process would have logged for the same batches.
        means = [0.5, 2.5, 4.5, 6.5, 8.5, 10.0]
        assert final["val_sum/dataloader_idx_0"] == sum(means)
        assert final["first_only"] == 7.0  # a key that one process alone has logged


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("logs", ["", "step", "step+end"])
def test_collectives_of_an_epoch(logs: str, world: int, results: Run) -> None:
    """Lengths before it, four small questions behind it, and the values if there are any.

    The questions: whether to stop and whether the last step has values; whether there are
    values of the epoch, and of its end hook; whether to stop.
    """
    exchange = ["all_gather_object"]
    of_steps = exchange if "step" in logs else []
    of_its_end = exchange if "end" in logs else []
    epoch = ["all_gather", "step", "step", "step", "all_reduce", *of_steps]
    epoch += ["all_reduce", *of_steps, "all_reduce", *of_its_end, "all_reduce"]
    for result in results(world):
        assert result["collectives_of_a_fit"][logs] == [epoch] * 3


@pytest.mark.parametrize("world", [2, 3])
def test_what_a_checkpoint_callback_logs_is_reduced_too(
    world: int, results: Run
) -> None:
    found = [result["logged_by_a_checkpoint_callback"] for result in results(world)]
    assert found == [(world - 1) / 2] * world


def test_callbacks_see_reduced_values_at_the_epochs_end(results: Run) -> None:
    for found in (result["metrics"] for result in results(2)):
        assert found["at_epoch_end"]["plain"] == found["final"]["plain"]
        assert found["at_epoch_end"]["val/dataloader_idx_0"] == 5.0


def test_step_values_are_reduced_where_they_are_reported(results: Run) -> None:
    """log, parameter sync_dist: synchronise over devices; by default False."""
    first, second = (result["metrics"] for result in results(2))
    # Batches of 2 in turn: process 0 has 0, 2 | 4, 6 | ..., process 1 one more each.
    reported = [step.get("both_step") for step in first["steps"]]
    assert reported == [None, 1.0, 5.5, 9.0]  # local, at the report, local
    assert [step.get("both_step") for step in second["steps"]] == [None, 2.0, 5.5, 10.0]
    assert [step.get("own_step") for step in first["steps"]] == [None, 1.0, 5.0, 9.0]
    assert first["final"]["both_step"] == second["final"]["both_step"] == 13.5
    assert (first["final"]["own_step"], second["final"]["own_step"]) == (13.0, 14.0)


def test_rank_zero_only_keeps_a_value_to_its_process(results: Run) -> None:
    for rank, result in enumerate(results(2)):
        assert result["metrics"]["final"]["mine/dataloader_idx_0"] == rank


def test_values_of_a_group_are_reduced_in_it_whoever_has_logged(results: Run) -> None:
    """A process that logs nothing for a group keeps none of the others waiting."""
    found = [result["metrics_of_groups"] for result in results(3)]
    pair = {"pair": 1 / 3, "pair_epoch": 1 / 3, "end": 5.0}
    for rank in (0, 1):
        metrics = found[rank]
        assert metrics.pop("pair_step") == 0.5
        assert metrics == pytest.approx({**pair, "own": float(rank)})
    assert found[2] == {"own": 2.0, "end": 7.0}


def test_keys_that_differ_are_named_in_every_process(results: Run) -> None:
    for result in results(2):
        message = result["keys_that_differ"]
        assert "only_1" in message
        assert "`validation_step`" in message
        assert "process 0" in message
        # And where each process has logged what it has, in agreement_cases.py.
        line = r"\S+agreement_cases\.py:\d+"
        assert re.search(rf"not logged 'only_1' \(process 1 does, at {line}\)", message)
        assert re.search(rf", but 'shared' at {line}, 'only_0' at {line}\.", message)


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_metric_objects_reduce_by_themselves(world: int, results: Run) -> None:
    for result in results(world):
        assert result["metric_objects"] == [{"object": 0.0}, {"object": 3.0}]


@pytest.mark.parametrize("world", [2, 3])
def test_one_process_asking_to_stop_stops_all_at_the_same_step(
    world: int, results: Run
) -> None:
    for result in results(world):
        # Asked in the 2nd batch; all look at reports, else at the epoch's end.
        assert result["stopping"]["asked/4"] == [4, True]
        assert result["stopping"]["asked/100"] == [10, True]


@pytest.mark.parametrize("world", [2, 3])
def test_early_stopping_heeds_any_process(world: int, results: Run) -> None:
    found = [result["stopping"] for result in results(world)]
    assert all(each["early"] == [3, "PATIENCE_EXHAUSTED"] for each in found)
    # The reason is that of all, and told once.
    assert [each["told"] for each in found] == [1] + [0] * (world - 1)


def test_checkpoints_are_rank_zeros_choice_everywhere(results: Run) -> None:
    first, second = (result["checkpoints"] for result in results(2))
    assert first == second
    assert first["version"] == 0
    assert first["others"] == ["version_0"]  # one folder, made by one process
    # Process 0 scores 1, 0, 1, 2.
    assert first["best"].endswith("epoch=1-step=4.ckpt")
    assert first["kept"] == ["epoch=0-step=2.ckpt", "epoch=1-step=4.ckpt"]
    assert first["files"] == [*first["kept"], "last.ckpt"]


@pytest.mark.parametrize("where", ["epoch", "middle"])
def test_resumed_fit_is_the_uninterrupted_one_to_the_bit(
    where: str, results: Run
) -> None:
    first, second = (result["resuming"][where] for result in results(2))
    assert first == second
    whole, resumed, path = first
    assert whole == resumed, path


def test_fit_that_is_resumed_inside_a_validation_too(results: Run) -> None:
    first, second = (result["resuming_inside_a_validation"] for result in results(2))
    assert first == second
    whole, resumed = first
    assert whole == resumed


def test_learning_rate_that_is_found_is_the_same_everywhere(results: Run) -> None:
    first, second = (result["learning_rate_search"] for result in results(2))
    assert first == second
    assert first["lr"] != 0.001


@pytest.mark.filterwarnings("ignore:.* holds the state of callbacks")
def test_other_number_of_processes_goes_on_from_an_epochs_end(results: Run) -> None:
    """From inside of one: see test_elastic.py."""
    at_the_end = results(2)[0]["resuming"]["epoch"][2]
    data = DataLoader(numbered(8), 2)
    trainer = quiet(1, max_epochs=2)
    trainer.fit(Noisy(), data, ckpt_path=at_the_end)
    assert (trainer.current_epoch, trainer.global_step) == (2, 4 + 4)


@pytest.mark.parametrize("case", ["saves_that_fail", "saves_that_fail_in_a_thread"])
def test_save_that_fails_is_every_process_affair(case: str, results: Run) -> None:
    for found in (result[case] for result in results(2)):
        assert found["failed"] == 2
        assert found["raised"]
        assert found["best"] == "epoch=1-step=4.ckpt"
        assert found["last"] == "last.ckpt"
        assert found["files"] == ["epoch=1-step=4.ckpt", "last.ckpt"]


def test_word_for_a_checkpoint_means_what_rank_zero_finds(results: Run) -> None:
    for found in (result["words_that_rank_zero_understands"] for result in results(2)):
        assert found == {
            "last": "last.ckpt",
            "best": "CheckpointNotFoundError",
            "hpc": "CheckpointNotFoundError",
        }


@pytest.mark.parametrize(
    "case", ["last_that_a_thread_wrote", "loggers_of_rank_zero_only"]
)
def test_every_process_goes_on(case: str, results: Run) -> None:
    assert [result[case] for result in results(2)] == [True, True]


@pytest.mark.parametrize("world", [1, 2])
def test_folders_that_all_write_resume_exactly(world: int, results: Run) -> None:
    for found in (result["folders_that_all_write"] for result in results(world)):
        same, names = found
        assert same
        assert names[-2:] == ["last.ckpt", "manifest.json"]
        assert not [name for name in names if name.startswith(".")]


@pytest.mark.parametrize("interval", ["epoch", "step"])
def test_rates_follow_what_all_processes_have_logged(
    interval: str, results: Run
) -> None:
    """A plateau scheduler may watch what a step logs with `sync_dist=True`."""
    found = [result["rates_of_plateaus"][interval] for result in results(2)]
    assert found == [0.01, 0.01]
