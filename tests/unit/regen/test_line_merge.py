"""Bringing the generator's change into the user's lines, and losing none of them."""

from __future__ import annotations

import random

import pytest

from lightgen.project.line_merge import LineConflict, merge_lines

BASE = "a\nb\nc\nd\n"


@pytest.mark.parametrize(
    ("ours", "theirs", "merged"),
    [
        pytest.param(BASE, BASE, BASE, id="nothing"),
        pytest.param("a\nB\nc\nd\n", BASE, "a\nB\nc\nd\n", id="mine alone"),
        pytest.param(BASE, "a\nB\nc\nd\n", "a\nB\nc\nd\n", id="theirs alone"),
        pytest.param("A\nb\nc\nd\n", "a\nB\nc\nd\n", "A\nB\nc\nd\n", id="neighbours"),
        pytest.param("a\nB\nc\nd\n", "a\nB\nc\nD\n", "a\nB\nc\nD\n", id="both alike"),
        pytest.param("a\nx\nb\nc\nd\n", "a\nb\nd\n", "a\nx\nb\nd\n", id="in and out"),
        pytest.param(
            "a\nm\nb\nc\nd\n", "a\ng\nb\nc\nd\n", "a\ng\nm\nb\nc\nd\n", id="both put in"
        ),
        pytest.param("a\nc\nd\n", "a\nc\nd\nx\n", "a\nc\nd\nx\n", id="taken out by me"),
        pytest.param("a\nb\nc\nd", "A\nb\nc\nd\n", "A\nb\nc\nd", id="no last line end"),
        pytest.param("a\nb\nc\nd", "a\nb\nc\nD\n", "a\nb\nc\nD", id="last line alone"),
        pytest.param(
            "a\nb\nc\nd", "a\nb\nc\nd\ne\n", "a\nb\nc\nd\ne", id="behind the last"
        ),
        pytest.param(
            "a\nm\ng\nb\nc\nd\n",
            "a\ng\nb\nc\nd\n",
            "a\nm\ng\nb\nc\nd\n",
            id="partly alike",
        ),
        pytest.param("", BASE, "", id="all taken out"),
    ],
)
def test_changes_apart_are_put_together(ours: str, theirs: str, merged: str) -> None:
    assert merge_lines(BASE, ours, theirs) == (merged, [])


def test_line_that_both_changed_is_a_conflict() -> None:
    ours, theirs = "a\nb\nMINE\nd\n", "a\nb\nNEW\nd\n"
    conflict = LineConflict(line=3, ours="MINE\n", theirs="NEW\n")
    assert merge_lines(BASE, ours, theirs) == (ours, [conflict])


def test_line_taken_out_and_changed_is_a_conflict() -> None:
    ours, theirs = "a\nc\nd\n", "a\nB\nc\nd\n"
    conflict = LineConflict(line=2, ours="", theirs="B\n")
    assert merge_lines(BASE, ours, theirs) == (ours, [conflict])


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (
            "#SBATCH --partition=debug\na\nb\nc\nd\n",
            "a\nb\n#SBATCH --partition=gpu\nc\nd\n",
        ),
        ("a\n  memory: 1Gi\nb\nc\nd\n", "a\n  memory: 2Gi\nb\nc\nd\n"),
    ],
    ids=["option of sbatch, anywhere", "key, at one place"],
)
def test_setting_that_both_put_in_is_a_conflict(ours: str, theirs: str) -> None:
    merged, (conflict,) = merge_lines(BASE, ours, theirs)
    assert merged == ours
    assert (conflict.ours in ours, conflict.theirs in theirs) == (True, True)


def test_setting_that_both_put_in_alike_is_there_once() -> None:
    ours = "a\nb\nc\nd\n#SBATCH --partition=gpu\n"
    theirs = "a\n#SBATCH --partition=gpu\nb\nc\nd\n"
    assert merge_lines(BASE, ours, theirs) == (ours, [])


@pytest.mark.parametrize("seed", range(200))
def test_no_line_of_either_side_is_lost(seed: int) -> None:
    draw = random.Random(seed)
    base = [f"{number}\n" for number in range(8)]
    ours, theirs = (_edited(base, side, draw) for side in ("mine", "new"))
    merged, conflicts = merge_lines("".join(base), "".join(ours), "".join(theirs))
    if conflicts:
        assert merged == "".join(ours)
        return
    lines = merged.splitlines(keepends=True)
    added = [line for line in [*ours, *theirs] if line not in base]
    assert sorted(line for line in lines if line not in base) == sorted(added)
    kept = [line for line in base if line in ours and line in theirs]
    assert [line for line in lines if line in base] == kept


def _edited(base: list[str], side: str, draw: random.Random) -> list[str]:
    lines = []
    for number, line in enumerate(base):
        what = draw.choice(["keep"] * 6 + ["change", "remove", "insert"])
        if what == "insert":
            lines.append(f"{side} before {number}\n")
        if what == "change":
            lines.append(f"{side} {number}\n")
        elif what != "remove":
            lines.append(line)
    return lines
