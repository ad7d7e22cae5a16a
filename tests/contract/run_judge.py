"""Says where two recordings of the same run differ first, apart from what is intended."""

from __future__ import annotations

import struct
from itertools import zip_longest
from typing import Any

from run_tape import Event, Tape

CONTEXT = 6
# What either package raises for a user's mistake; which class for which differs.
USAGE = {
    "CheckpointNotFoundError",
    "FileNotFoundError",
    "MisconfigurationException",
    "RuntimeError",
    "TypeError",
    "ValueError",
}


def first_difference(ours: Tape, theirs: Tape) -> str | None:
    """Return a description of the first difference, None if there is none."""
    mine, other = normalised(ours.events), normalised(theirs.events)
    for number, (one, two) in enumerate(zip_longest(mine, other)):
        if one == two:
            continue
        before = [
            f"  both   {event}" for event in mine[max(0, number - CONTEXT) : number]
        ]
        after = [f"  ours   {event}" for event in mine[number : number + 4]]
        after += [f"  theirs {event}" for event in other[number : number + 4]]
        return "\n".join([f"event {number}:", *before, *after, *_detail(one, two)])
    return None


def _detail(one: Event | None, two: Event | None) -> list[str]:
    """Name the entries of two dictionaries that differ."""
    if not one or not two or one[0] != two[0]:
        return []
    mine, other = one[1], two[1]
    if isinstance(mine, list) and mine and isinstance(mine[-1], dict):
        mine, other = mine[-1], other[-1]
    if not isinstance(mine, dict) or not isinstance(other, dict):
        return []
    keys = [k for k in {**mine, **other} if mine.get(k) != other.get(k)]
    return [f"  {key}: ours {mine.get(key)}, theirs {other.get(key)}" for key in keys]


# ---- intended differences: each belongs to a row of docs/compat.md ----


def normalised(events: list[Event]) -> list[Event]:
    """Return the events without the intended differences."""
    errors = [str(facts).split(":")[0] for what, facts in events if what == "error"]
    if errors:
        # What leads to an error may be refused earlier here, and clean-up differs
        # (`test_teardown_after_an_error`).
        return [("error", "usage" if errors[0] in USAGE else errors[0])]
    kept = _without_the_rest_of_the_epoch(events)
    return [(what, _single(what, facts)) for what, facts in kept]


def _without_the_rest_of_the_epoch(events: list[Event]) -> list[Event]:
    """`test_resume_from_the_end_hook_of_an_epoch`: the epoch's point is sent here."""
    kept, resuming = [], False
    for what, facts in events:
        resuming = resuming or what.endswith(" resume")
        if what == "module.training_step":
            resuming = False
        if not (resuming and what == "logger.log_metrics"):
            kept.append((what, facts))
    return kept


def _single(what: str, facts: Any) -> Any:
    """`test_precision_of_logged_numbers`: numbers stay in double precision here."""
    kinds = ("log_metrics", "_metrics", "result")
    return _rounded(facts) if what.endswith(kinds) else facts


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_rounded(entry) for entry in value]
    if isinstance(value, float):
        return struct.unpack("f", struct.pack("f", value))[0]
    return value
