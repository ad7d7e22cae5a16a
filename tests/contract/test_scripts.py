"""User scripts give the same with Lightning and with only their import lines changed.

The scripts are the kinds that people write. Each is seeded and ends by printing one line
of JSON with what its author would compare: weights, counters, rates, names of files, and
under `metrics` what was logged.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from recording import OURS, REFERENCE
from run_scripts import rewritten

HERE = Path(__file__).parent
SCRIPTS = HERE / "scripts"

_TEST_STATE = "`test(ckpt_path=...)` loads the module but not the state of callbacks"
_COUNTS = "the numbers of batches are those of the last entry point alone"
_RECORD = "files of weights alone say what they are kept for, too"
_OTHER_RATE = "a resume takes the learning rate that the code has changed"

# Script and place in its result: why it is another one. All else is equal.
KNOWN_DIFFERENCES = {
    ("callback_state_in_test", "/metrics/0/test_mean"): _TEST_STATE,
    ("callback_state_in_test", "/count"): _TEST_STATE,
    ("callback_state_in_test", "/mean"): _TEST_STATE,
    ("checkpoint_ensemble", "/keys"): _RECORD,
    ("more_epochs", "/longer/rate"): _OTHER_RATE,
    ("more_epochs", "/longer/weights"): _OTHER_RATE,
    ("more_epochs", "/longer/metrics/loss"): _OTHER_RATE,
    ("several_val_loaders", "/num_val_batches"): _COUNTS,
}


@pytest.mark.slow
def test_scripts_give_the_same(tmp_path: Path) -> None:
    with ThreadPoolExecutor() as both:
        theirs, ours = both.map(_results, (REFERENCE, OURS), (tmp_path, tmp_path))
    assert theirs.keys() == ours.keys() == {path.stem for path in SCRIPTS.glob("*.py")}

    found = {
        (script, place): text
        for script in theirs
        for place, text in differences(theirs[script], ours[script])
    }
    unknown = {at: text for at, text in found.items() if not _known(*at)}
    assert not unknown, "\n".join(f"{s} {p}: {t}" for (s, p), t in unknown.items())
    stale = [at for at in KNOWN_DIFFERENCES if not any(_is_in(f, at) for f in found)]
    assert not stale, f"no longer different, take out of KNOWN_DIFFERENCES: {stale}"


def _results(package: str, folder: Path) -> dict[str, Any]:
    """Run all scripts with a package in one process, whose import is paid once."""
    work = folder / package
    work.mkdir()
    command = [sys.executable, str(HERE / "run_scripts.py"), package, str(SCRIPTS)]
    done = subprocess.run(
        [*command, str(work)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    results: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return results


def differences(theirs: Any, ours: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Find the places where two results differ, and what each has there.

    Everything has to be equal to the last bit, except what stands under `metrics`: there
    the reference rounds to single precision (see `test_precision_of_logged_numbers`).
    """
    if isinstance(theirs, dict) and isinstance(ours, dict):
        if "error" in theirs or "error" in ours:
            yield "/error", f"{_error(theirs)} with {REFERENCE}, {_error(ours)} with {OURS}"
            return
        for key in sorted(theirs.keys() | ours.keys()):
            if key in theirs and key in ours:
                yield from differences(theirs[key], ours[key], f"{place}/{key}")
            else:
                only = REFERENCE if key in theirs else OURS
                yield f"{place}/{key}", f"only with {only}"
    elif (
        isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours)
    ):
        for index, pair in enumerate(zip(theirs, ours, strict=True)):
            yield from differences(*pair, f"{place}/{index}")
    elif not _equal(theirs, ours, rounded="/metrics/" in f"{place}/"):
        yield place, f"{theirs!r} with {REFERENCE}, {ours!r} with {OURS}"


def _error(result: dict[str, Any]) -> str:
    return str(result.get("error", "no error")).rstrip()


def _equal(theirs: Any, ours: Any, *, rounded: bool) -> bool:
    if isinstance(theirs, float) and isinstance(ours, float):
        if math.isnan(theirs) or math.isnan(ours):
            return math.isnan(theirs) and math.isnan(ours)
        tolerance = 1e-5 if rounded else 0.0
        return math.isclose(theirs, ours, rel_tol=tolerance, abs_tol=tolerance / 100)
    return type(theirs) is type(ours) and bool(theirs == ours)


def _known(script: str, place: str) -> bool:
    return any(_is_in((script, place), known) for known in KNOWN_DIFFERENCES)


def _is_in(found: tuple[str, str], known: tuple[str, str]) -> bool:
    return found[0] == known[0] and f"{found[1]}/".startswith(f"{known[1]}/")


# ---- the scripts and the comparison themselves ----


@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("*.py")), ids=lambda p: p.stem)
def test_only_imports_name_the_package(script: Path) -> None:
    text = script.read_text("utf-8")
    assert text.count("\nimport lightning as L\n") == 1
    assert "lightning" not in rewritten(text, "other")


def test_there_are_scripts_of_many_kinds() -> None:
    assert len(list(SCRIPTS.glob("*.py"))) >= 25


@pytest.mark.parametrize(
    ("theirs", "ours", "places"),
    [
        ({"a": [1, {"b": 0.1}]}, {"a": [1, {"b": 0.1}]}, []),
        ({"a": [1, {"b": 0.1}]}, {"a": [1, {"b": 0.1 + 1e-16}]}, ["/a/1/b"]),
        ({"metrics": {"x": 0.1}}, {"metrics": {"x": 0.1 + 1e-8}}, []),
        ({"metrics": {"x": 0.1}}, {"metrics": {"x": 0.1001}}, ["/metrics/x"]),
        (
            {"metrics": {"x": 1.0}},
            {"metrics": {"y": 1.0}},
            ["/metrics/x", "/metrics/y"],
        ),
        ({"n": 1}, {"n": 1.0}, ["/n"]),
        ({"n": float("nan")}, {"n": float("nan")}, []),
        ({"n": float("nan")}, {"n": 1.0}, ["/n"]),
        ({"l": [1, 2]}, {"l": [1]}, ["/l"]),
        ([1], {"error": "it broke"}, [""]),
        ({"error": "it broke"}, {"error": "it broke"}, ["/error"]),
    ],
)
def test_comparison_finds_what_differs(
    theirs: Any, ours: Any, places: list[str]
) -> None:
    assert [place for place, _ in differences(theirs, ours)] == places
