"""Bringing one change into a text that has another."""

from __future__ import annotations

import random

import pytest

from lightgen.project.transplant import APART, transplant

COMMON = "".join(f"{number}\n" for number in range(20))


def changed(*edits: tuple[int, int, str]) -> bytes:
    """The common text with lines from `start` to `end` replaced, the last one first."""
    lines = COMMON.splitlines(keepends=True)
    for start, end, text in edits:
        lines[start:end] = text.splitlines(keepends=True)
    return "".join(lines).encode()


@pytest.mark.parametrize("mine", [(0, 1, "mine\n"), (19, 20, "mine"), (15, 15, "m\n")])
def test_changes_apart_are_both_there(mine: tuple[int, int, str]) -> None:
    theirs = (8, 10, "theirs\n")
    expected = changed(*sorted([mine, theirs], reverse=True))
    assert transplant(COMMON.encode(), changed(theirs), changed(mine)) == expected


@pytest.mark.parametrize("gap", range(5))
def test_changes_must_be_some_lines_apart(gap: int) -> None:
    mine = changed((10 + gap, 11 + gap, "mine\n"))
    result = transplant(COMMON.encode(), changed((9, 10, "theirs\n")), mine)
    assert (result is None) is (gap < APART)


def test_same_change_on_both_sides_is_close() -> None:
    same = changed((9, 10, "same\n"))
    assert transplant(COMMON.encode(), same, same) is None


def test_change_of_what_was_not_touched_is_exact() -> None:
    theirs = changed((0, 20, "all\nnew\n"))
    assert transplant(COMMON.encode(), theirs, COMMON.encode()) == theirs


@pytest.mark.parametrize("seed", range(40))
def test_nothing_is_lost_and_the_way_back_leads_home(seed: int) -> None:
    pick = random.Random(seed)
    # Repeated lines make the alignment ambiguous.
    common = [f"{pick.randrange(6)}\n" for _ in range(40)]

    def edited(mark: str) -> tuple[bytes, list[str]]:
        lines, marks = list(common), []
        for number in range(pick.randrange(1, 3)):
            at = pick.randrange(len(lines))
            marks.append(f"{mark}{number}\n")
            lines[at : at + pick.randrange(3)] = [marks[-1]]
        text = "".join(lines)
        return text.encode(), [mark for mark in marks if mark in text]

    base = "".join(common).encode()
    theirs, their_marks = edited("theirs")
    mine, my_marks = edited("mine")
    result = transplant(base, theirs, mine)
    if result is not None:
        lines = result.decode().splitlines(keepends=True)
        assert set(their_marks + my_marks) <= set(lines)
        back = transplant(theirs, base, result)
        assert back in (mine, None)
