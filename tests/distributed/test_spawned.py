"""Processes that are started for one run: what they do, and what comes back from them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import program

from lightgen_runtime import Trainer
from lightgen_runtime.strategies import DDPStrategy, multiprocess
from lightgen_runtime.utilities.exceptions import MisconfigurationException

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """Return a function from a strategy to what its program found, by case."""

    @cache
    def of(strategy: str) -> dict[str, Any]:
        if strategy == "ddp_fork" and not hasattr(os, "fork"):
            pytest.skip("needs fork")
        work = tmp_path_factory.mktemp(strategy)
        done = program(str(HERE / "spawned_main.py"), strategy, cwd=work)
        assert done.returncode == 0, done.stderr
        cases: dict[str, Any] = json.loads((work / "found.json").read_text())
        return cases

    return of


Found = Callable[[str], dict[str, Any]]
both = pytest.mark.parametrize("strategy", ["ddp_fork", "ddp_spawn"])


@both
def test_a_fit_leaves_here_what_a_fit_leaves(
    strategy: str, found: Found, own: dict[str, Any]
) -> None:
    fit = found(strategy)["whole"]
    assert fit["weights"] == own["weights"]  # as with processes of the other kind
    assert fit["loss"] == own["loss"]
    assert fit["metrics"] == ["loss", "mean"]
    assert fit["state"] == "finished"
    assert fit["epochs"] == [1, 3]
    assert fit["world"] == 2
    assert fit["logged"]
    assert fit["best"] == [True, 0]
    assert fit["of_best"] == fit["weights"]


@both
def test_what_entry_points_return_comes_back(strategy: str, found: Found) -> None:
    whole = found(strategy)["whole"]
    assert whole["validate"] == [{"mean": 5.5}]
    assert whole["test"] == [{"largest": 11.0}]
    assert whole["tested"] == whole["of_best"]  # a test after a fit is of its best
    assert whole["predict"] == list(range(12))  # of both processes, in order
    assert whole["nothing"] is None


@both
def test_checkpoint_written_afterwards_holds_weights(
    strategy: str, found: Found
) -> None:
    saved = found(strategy)["whole"]["saved"]
    assert "state_dict" in saved
    assert "optimizer_states" not in saved


@both
def test_layers_that_are_made_in_the_run_come_back(strategy: str, found: Found) -> None:
    assert found(strategy)["grown"] == {"late": [1, 1], "steps": 3.0}


@pytest.mark.parametrize(
    ("case", "kind", "parts"),
    [
        ("key", "KeyError", ["in process 1 of 2", "in raise_key_error", "is broken"]),
        ("own", "ProcessRaisedException", ["in process 1 of 2", "Own: number 7"]),
        ("killed", "ProcessExitedException", ["process 1 of 2", "exit code -9"]),
    ],
)
def test_error_of_a_process_is_raised_here(
    case: str, kind: str, parts: list[str], found: Found
) -> None:
    error = found("ddp_fork")[case]
    assert (error["type"], error["state"]) == (kind, "interrupted")
    for part in parts:
        assert part in error["trace"]


def test_what_cannot_be_sent_is_named(found: Found) -> None:
    error = found("ddp_spawn")["unsent"]
    assert error["type"] == "MisconfigurationException"
    assert "lambda" in error["text"]
    assert "strategy='ddp'" in error["text"]


@pytest.mark.parametrize(
    ("case", "kind"),
    [("ctrl_c", "KeyboardInterrupt"), ("terminated", "SIGTERMException 143")],
)
def test_signal_ends_the_fit_and_its_state_is_kept(
    case: str, kind: str, found: Found
) -> None:
    ended = found("ddp_fork")[case]
    steps = ended.pop("steps")
    assert steps >= 2
    assert ended == {
        "kind": kind,
        "saved": True,
        "trained": True,  # and that is in the module here
        "own_handler": True,  # as before the fit
    }


SESSION = """
import sys
sys.path.insert(0, {here!r})
from launched_net import *
class Typed(Told):
    def forward(self, x):
        return super().forward(x)

trainer = quiet(2, strategy="auto", **{flags})
model = Typed()
torch_before = __import__("torch").ones(2000, 2000).sin().sum()
trainer.fit(model, loader())
print(json.dumps([type(trainer.strategy).__name__, trainer.strategy.start_method, weights(model)]))
try:
    quiet(2, strategy="ddp").fit(model, loader())
except Exception as error:
    print(json.dumps(str(error)))

try:
    quiet(2, strategy="ddp_spawn")
except Exception as error:
    print(json.dumps(str(error)))

"""


def session(folder: Path, flags: dict[str, Any]) -> list[Any]:
    """Type a program into an interactive session; return what that prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-i", "-q"],
        cwd=folder,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        input=SESSION.format(here=str(HERE), flags=flags),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line[:1] in '["']


@needs_fork
def test_interactive_session_forks(tmp_path: Path, own: dict[str, Any]) -> None:
    trained, again, spawned = session(tmp_path, {})
    assert trained == ["DDPStrategy", "fork", own["weights"]]
    assert "strategy='ddp_notebook'" in again
    assert "ddp_notebook" in spawned


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@needs_fork
def test_interactive_session_forks_a_process_for_a_gpu(tmp_path: Path) -> None:
    flags = {"accelerator": "gpu", "devices": 1, "strategy": "ddp_notebook"}
    text = SESSION.partition("try:")[0].replace('strategy="auto", ', "")
    text = text.format(here=str(HERE), flags=flags)
    text += "print(__import__('torch').cuda.is_initialized())\n"
    done = subprocess.run(
        [sys.executable, "-i", "-q"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        input=text,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *_, trained, initialized = done.stdout.splitlines()
    assert json.loads(trained)[1] == "fork"
    assert initialized == "False"


FORK_SERVER = """
from launched_net import *
from lightgen_runtime.strategies import DDPStrategy

if __name__ == "__main__":
    trainer, model = quiet(2, strategy=DDPStrategy(start_method="forkserver")), Told()
    trainer.fit(model, loader())
    print(json.dumps(weights(model)))
"""


@needs_fork
def test_processes_of_a_fork_server(tmp_path: Path, own: dict[str, Any]) -> None:
    (tmp_path / "main.py").write_text(FORK_SERVER)
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    done = program("main.py", cwd=tmp_path, PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == own["weights"]


def quiet(**flags: Any) -> Trainer:
    return Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, **flags)


def test_system_without_fork_is_told_of_what_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(multiprocess.mp, "get_all_start_methods", lambda: ["spawn"])
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    for strategy in ("auto", "ddp_notebook", "ddp_fork"):
        with pytest.raises(MisconfigurationException, match=r"'fork' .* has spawn"):
            quiet(devices=2, strategy=strategy)
    with pytest.raises(MisconfigurationException, match="cannot be started"):
        DDPStrategy(start_method="teleport")


@needs_fork
def test_cuda_that_is_in_use_is_not_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    from trial_net import Net, numbered

    trainer = quiet(devices=2, strategy="ddp_fork", max_epochs=1)
    module, data = Net(), numbered(4)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(MisconfigurationException, match="this process has used CUDA"):
        trainer.fit(module, data)


def test_started_processes_are_joined_whatever_the_strategy_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from lightgen_runtime.trainer.launched import is_launched

    assert is_launched(quiet(devices=2, strategy="ddp_spawn"))
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "2" if "SIZE" in name else "1")
    trainer = quiet(devices=2, strategy="ddp_spawn")
    assert not is_launched(trainer)
    assert trainer.global_rank == 1
