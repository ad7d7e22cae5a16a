"""Lets the contract tests import the classes beside them; runs scenarios on both packages."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

Scenario = Callable[[Any, Path], Any]


@pytest.fixture
def same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Scenario], Any]:
    """Run a scenario with each package in a folder of its own; compare what it returns.

    The scenario is given the package's name and the folder, which is the current one.
    """

    def compare(scenario: Scenario) -> Any:
        found = []
        for namespace in ("lightgen_runtime", "lightning"):
            root = tmp_path / namespace
            root.mkdir()
            monkeypatch.chdir(root)
            found.append(scenario(namespace, root))
        assert found[0] == found[1]
        return found[0]

    return compare


@pytest.fixture
def same_with_loggers(same: Callable[[Scenario], Any]) -> Callable[[Scenario], Any]:
    """As `same`, for scenarios that are given the package's `loggers` module."""

    def compare(scenario: Scenario) -> Any:
        def with_loggers(namespace: str, root: Path) -> Any:
            loggers = importlib.import_module(f"{namespace}.pytorch.loggers")
            return scenario(loggers, root)

        return same(with_loggers)

    return compare
