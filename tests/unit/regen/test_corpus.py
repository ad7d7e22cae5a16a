"""The region engine on thousands of pairs of a generator's change and a user's edit."""

from __future__ import annotations

import os
from collections import Counter

import pytest
from blocks import source_of
from corpus import Pair, edited, pairs
from judge import expected_text, observe

from lightgen.optim.conformity import unknown_argument
from lightgen.optim.emit import emit
from lightgen.optim.spec import OptimSpec
from lightgen.regen.block import Generated, Place, regenerate

PAIRS = int(os.environ.get("LIGHTGEN_CORPUS", "3000"))
PARTS = 6
PLACE = Place("module.py", "Module", "configure_optimizers")


def generated(spec: OptimSpec) -> Generated:
    return Generated(*emit(spec))


def verdict(pair: Pair) -> tuple[str, str]:
    """Return what became of a pair, and why."""
    ours = edited(source_of(pair.before), pair.edits)
    assert ours is not None
    before, after = generated(pair.before), generated(pair.after)
    outcome = regenerate(ours, PLACE, before, after, check=unknown_argument)
    if outcome.conflicts:
        assert outcome.text == ours
        named = all(
            found.ours or found.theirs or found.slot for found in outcome.conflicts
        )
        return ("refused" if named else "wrong"), outcome.conflicts[0].slot
    expected = expected_text(pair, source_of(pair.after))
    if expected is None:
        return "wrong", "merged, although an edit has lost what it was about"
    if observe(outcome.text) != observe(expected):
        return "wrong", "behaves differently"
    if regenerate(outcome.text, PLACE, after, after).text != outcome.text:
        return "wrong", "changes again the second time"
    return "merged", ""


@pytest.mark.parametrize("part", range(PARTS))
def test_corpus_is_merged_and_never_wrong(part: int) -> None:
    verdicts: Counter[str] = Counter()
    for pair in pairs(seed=part, count=PAIRS // PARTS):
        found, reason = verdict(pair)
        verdicts[found] += 1
        assert found != "wrong", (reason, pair)
    assert verdicts["merged"] >= 0.92 * (PAIRS // PARTS), verdicts
