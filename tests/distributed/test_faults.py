"""One process of several goes wrong: all end within seconds, and it is said why."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from processes import clean_environment, program

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
SOURCE = (HERE / "faulty.py").read_text().splitlines()
# A process that waits in vain would do so for half an hour.
SOON_S = 35


class End(NamedTuple):
    """What has become of both processes of a case."""

    codes: list[int]
    seconds: float
    said: list[str]

    @property
    def all_said(self) -> str:
        return "".join(self.said)


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> dict[str, End]:
    work = tmp_path_factory.mktemp("faults")
    done = program(str(HERE / "faulty.py"), cwd=work)
    assert done.returncode == 0, done.stderr
    found = json.loads((work / "ends.json").read_text())
    return {name: _end(work, name, by_rank) for name, by_rank in found.items()}


def _end(work: Path, name: str, by_rank: dict[str, Any]) -> End:
    own = [by_rank[str(rank)] for rank in range(2)]
    said = [(work / f"{name}.{rank}").read_text() for rank in range(2)]
    return End([e["code"] for e in own], max(e["seconds"] for e in own), said)


def line(text: str, number: int = 0) -> str:
    """Return where `text` stands in the program: `faulty.py:LINE`."""
    return (
        f"faulty.py:{[n for n, each in enumerate(SOURCE, 1) if text in each][number]}"
    )


@pytest.mark.parametrize("faulty", [0, 1])
@pytest.mark.parametrize("case", ["Raises", "RaisesAtStart"])
def test_error_of_one_process_ends_all(
    case: str, faulty: int, ends: dict[str, End]
) -> None:
    end, other = ends[f"{case}.{faulty}"], 1 - faulty
    assert end.codes == [1, 1]
    assert end.seconds < SOON_S
    assert end.all_said.count("Traceback") == 1  # that of the one that failed
    assert "ValueError: this one is broken" in end.said[faulty]
    assert f"Rank {other} ends: rank {faulty} has left by ValueError" in end.said[other]


@pytest.mark.parametrize("case", ["RaisesInSetup", "RaisesInValidation"])
def test_error_outside_of_training_does_too(case: str, ends: dict[str, End]) -> None:
    end = ends[f"{case}.1"]
    assert end.codes == [1, 1]
    assert end.all_said.count("Traceback") == 1
    assert "Rank 0 ends: rank 1 has left by ValueError" in end.said[0]
    assert "Rank 0 waited for it" in end.said[0]


def test_error_in_teardown_keeps_nobody_waiting(ends: dict[str, End]) -> None:
    assert ends["RaisesInTeardown.1"].codes == [0, 1]


def test_nor_does_cleaning_up_that_waits_for_the_others(ends: dict[str, End]) -> None:
    end = ends["RaisesAndWaits.1"]
    assert end.codes == [1, 1]
    assert end.seconds < SOON_S
    assert "ValueError: this one is broken" in end.said[1]
    assert "Rank 0 ends: rank 1 has left by ValueError" in end.said[0]


def test_exit_code_is_that_of_the_first_that_failed(ends: dict[str, End]) -> None:
    assert ends["Exits.1"].codes == [3, 3]


def test_error_about_another_network_is_its_own(ends: dict[str, End]) -> None:
    end = ends["RaisesOfNetwork.1"]
    assert end.codes == [1, 1]
    assert "RuntimeError: socket.py: Connection reset by peer" in end.said[1]
    assert "without a word" not in end.all_said
    assert "Rank 0 ends: rank 1 has left by RuntimeError" in end.said[0]


@pytest.mark.parametrize("faulty", [0, 1])
def test_end_of_one_program_ends_who_waits_for_it(
    faulty: int, ends: dict[str, End]
) -> None:
    end, other = ends[f"EndsBetweenRuns.{faulty}"], 1 - faulty
    assert (end.codes[faulty], end.codes[other]) == (0, 1)
    assert end.seconds < SOON_S
    assert f"Rank {other} ends: rank {faulty} has ended its program" in end.said[other]
    assert "waited for it: the beginning of the run at" in end.said[other]


@pytest.mark.parametrize("case", ["Killed.0", "Killed.1", "SilentlyGone.1"])
def test_process_that_says_nothing(case: str, ends: dict[str, End]) -> None:
    end, other = ends[case], 1 - int(case[-1])
    assert end.codes[other] == 1
    assert end.seconds < SOON_S
    assert "has gone without a word" in end.said[other]


@pytest.mark.parametrize(
    ("case", "faultys", "others"),
    [
        ("Gathers.1", "`all_gather` at {the line}", "gradients of `training_step`"),
        ("Gathers.0", "`all_gather` at {the line}", "gradients of `training_step`"),
        ("Broadcasts.1", "`broadcast` at {the line}", "`barrier` at {another line}"),
        ("OwnCall.1", "`all_reduce` at {the line}", "the beginning of `training_step`"),
        ("ShorterEpoch.1", "values logged in an epoch", "`training_step`"),
    ],
)
def test_calls_that_differ_are_named_with_their_lines(
    case: str, faultys: str, others: str, ends: dict[str, End]
) -> None:
    number = ["Gathers", "Broadcasts", "OwnCall", ""].index(
        case[:-2] if "{" in faultys else ""
    )
    lines = {
        "{another line}": line("# another line"),
        "{the line}": line("# the line", min(number, 2)),
    }
    end, faulty = ends[case], int(case[-1])
    assert end.codes == [1, 1]
    assert end.seconds < SOON_S
    told = {
        int(each.strip()[5]): each
        for each in end.said[0].splitlines()
        if each.startswith("  rank ")
    }
    for rank, wanted in ((faulty, faultys), (1 - faulty, others)):
        for place, found in lines.items():
            if place in wanted:
                assert found in told[rank]
                wanted = wanted.partition(" at ")[0]
        assert wanted in told[rank]
        assert ".py:" in told[rank]
    assert "Traceback" not in end.all_said


@pytest.mark.parametrize("case", ["SkipsLoss.0", "SkipsLoss.1", "SkipsLossInMapping.1"])
def test_loss_of_none_in_one_process(case: str, ends: dict[str, End]) -> None:
    end, faulty = ends[case], int(case[-1])
    assert end.codes == [1, 1]
    assert end.seconds < SOON_S
    assert "MisconfigurationException" in end.said[faulty]
    kind = case[:-2]
    [start] = [
        n for n, each in enumerate(SOURCE, 1) if each.startswith(f"class {kind}(")
    ]
    other = end.said[1 - faulty]
    # Which lines both are at:
    assert f"gradients of `training_step` at {HERE / 'faulty.py'}:{start + 1}" in other
    assert f"rank {faulty} has left by MisconfigurationException" in other


def test_process_that_is_only_slow_is_not_accused(ends: dict[str, End]) -> None:
    end = ends["Slow.1"]
    assert end.codes == [0, 0]
    assert end.all_said.count("trained to the end") == 2


def test_programs_that_start_their_processes(tmp_path: Path) -> None:
    """Exit codes are those of the first that failed: 128 + s if a signal s has ended it."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    running = {}
    for name, command in {
        "Gathers": [str(HERE / "faulty.py"), "Gathers", "1"],
        "Killed": [str(HERE / "faulty.py"), "Killed", "1"],
        "Exits": [str(HERE / "faulty.py"), "Exits", "1"],
        "EndsBetweenRuns": [str(HERE / "faulty.py"), "EndsBetweenRuns", "0"],
        "Raises": [*torchrun, str(HERE / "faulty.py"), "Raises", "1"],
    }.items():
        running[name] = subprocess.Popen(
            [sys.executable, *command],
            cwd=tmp_path,
            env=clean_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
    said = {name: each.communicate(timeout=120)[1] for name, each in running.items()}
    codes = {name: each.returncode for name, each in running.items()}
    ends_early = codes.pop("EndsBetweenRuns")
    assert codes == {"Gathers": 1, "Killed": 137, "Exits": 3, "Raises": 1}
    assert ends_early == 1  # by that of the process that waited for the first one
    assert said["Gathers"].count("parted ways") == 1
    assert "Traceback" not in said["Gathers"]
    assert "Rank 0 ends" not in said["Gathers"]
    assert "rank 1 was ended by SIGKILL" in said["Killed"]
    assert "Traceback" not in said["Killed"]
    assert "ValueError: this one is broken" in said["Raises"]
    summary = said["Raises"].partition("Root Cause")[2]  # the last that torchrun says
    assert "ValueError: this one is broken" in summary
    assert "error_file: <N/A>" not in summary
