"""Run folders: numbers are unique, checkpoints are found, starts leave no trace."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lightgen_runtime.cli.runs import claim_run, find_checkpoint, run_of
from lightgen_runtime.utilities.exceptions import (
    CheckpointNotFoundError,
    RunFolderError,
)


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_run(number: int, best: str | None = None, last: str | None = None) -> None:
    folder = Path("runs", str(number))
    (folder / "checkpoints").mkdir(parents=True)
    summary: dict[str, str] = {}
    for kind, name in (("best", best), ("last", last)):
        if name is not None:
            path = folder / "checkpoints" / name
            path.touch()
            summary[f"{kind}_checkpoint"] = path.as_posix()
    (folder / "summary.json").write_text(json.dumps(summary))


def test_runs_are_numbered_from_one_and_never_reused() -> None:
    assert [claim_run().number for _ in range(2)] == [1, 2]
    Path("runs/1").rmdir()
    assert claim_run().number == 3


def test_run_numbers_count_as_numbers_not_as_text() -> None:
    make_run(9)
    make_run(10)
    Path("runs/notes").mkdir()
    assert claim_run().number == 11


def test_runs_claimed_at_once_get_different_numbers() -> None:
    with ThreadPoolExecutor(8) as pool:
        runs = [pool.submit(claim_run) for _ in range(40)]
    assert sorted(run.result().number for run in runs) == list(range(1, 41))


def test_claim_fails_with_a_reason_where_runs_is_a_file() -> None:
    Path("runs").touch()
    with pytest.raises(RunFolderError, match="`runs` in"):
        claim_run()


def test_discard_removes_a_start_and_the_folder_it_created() -> None:
    run = claim_run()
    (run.folder / "config.yaml").touch()
    (run.folder / "checkpoints").mkdir()
    run.discard_start()
    assert not Path("runs").exists()


@pytest.mark.parametrize("name", ["metrics.csv", "checkpoints/a.ckpt", "notes.txt"])
def test_discard_keeps_a_folder_with_results(name: str) -> None:
    run = claim_run()
    (run.folder / "checkpoints").mkdir()
    (run.folder / name).touch()
    run.discard_start()
    assert (run.folder / name).exists()


def test_best_and_last_are_of_the_newest_run_that_has_them() -> None:
    make_run(1, best="b1.ckpt", last="l1.ckpt")
    make_run(2, last="l2.ckpt")
    make_run(3)
    assert find_checkpoint("best") == Path("runs/1/checkpoints/b1.ckpt")
    assert find_checkpoint("last") == Path("runs/2/checkpoints/l2.ckpt")


def test_checkpoint_that_was_deleted_does_not_count() -> None:
    make_run(1, best="b1.ckpt")
    make_run(2, best="b2.ckpt")
    Path("runs/2/checkpoints/b2.ckpt").unlink()
    assert find_checkpoint("best") == Path("runs/1/checkpoints/b1.ckpt")


def test_last_of_a_killed_run_is_its_newest_file() -> None:
    make_run(1)
    Path("runs/1/summary.json").unlink()
    for name, seconds in (("b.ckpt", 200), ("a.ckpt", 100)):
        path = Path("runs/1/checkpoints", name)
        path.touch()
        os.utime(path, (seconds, seconds))
    assert find_checkpoint("last") == Path("runs/1/checkpoints/b.ckpt")


@pytest.mark.parametrize("given", ["1", "runs/1", "runs/1/"])
def test_run_stands_for_its_best_checkpoint(given: str) -> None:
    make_run(1, best="b.ckpt", last="l.ckpt")
    make_run(2, best="c.ckpt")
    assert find_checkpoint(given) == Path("runs/1/checkpoints/b.ckpt")


def test_path_is_taken_as_it_is() -> None:
    Path("elsewhere.ckpt").touch()
    assert find_checkpoint("elsewhere.ckpt") == Path("elsewhere.ckpt")


@pytest.mark.parametrize("kind", ["best", "last"])
def test_no_run_yet_says_to_train_first(kind: str) -> None:
    with pytest.raises(CheckpointNotFoundError, match=r"no run yet.*`fit`"):
        find_checkpoint(kind)


def test_no_best_checkpoint_points_to_the_last() -> None:
    make_run(1, last="l.ckpt")
    with pytest.raises(CheckpointNotFoundError, match="--ckpt_path last"):
        find_checkpoint("best")


@pytest.mark.parametrize("given", ["bst.ckpt", "runs/1/checkpoints/bst.ckpt"])
def test_missing_path_suggests_the_nearest_checkpoint(given: str) -> None:
    make_run(1, best="best.ckpt", last="last.ckpt")
    with pytest.raises(CheckpointNotFoundError) as error:
        find_checkpoint(given)
    assert "Did you mean `runs/1/checkpoints/best.ckpt`?" in str(error.value)


def test_missing_run_number_lists_the_runs() -> None:
    make_run(1)
    make_run(4)
    with pytest.raises(CheckpointNotFoundError, match=r"no run 3\. Runs here: 4, 1"):
        find_checkpoint("3")


def test_run_of_a_checkpoint_is_found_through_absolute_paths(project: Path) -> None:
    make_run(2, best="b.ckpt")
    run = run_of(project / "runs/2/checkpoints/b.ckpt")
    assert run is not None
    assert run.number == 2
    assert run_of(project / "b.ckpt") is None
