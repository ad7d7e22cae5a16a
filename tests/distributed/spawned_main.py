"""Runs in processes that are started for each: `python spawned_main.py STRATEGY`.

What the starting process knows afterwards goes into a file, by case.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from launched_net import Told, loader
from trial_net import quiet, weights

import lightgen_runtime as L

STRATEGY = sys.argv[1]


class Own(Exception):
    """An error that no other process can be sent: it does not say how it is made."""

    def __init__(self, *, number: int) -> None:
        super().__init__(f"number {number}")


class Failing(Told):
    """Fails in one process, after the others have gone on to wait for it."""

    def __init__(self, fail: Callable[[], None]) -> None:
        super().__init__()
        self.fail = fail

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.global_step == 1 and self.global_rank == 1:
            self.fail()
        return super().training_step(batch, batch_idx)


class Grown(Told):
    """Gets a layer, and a buffer's content, where it runs."""

    def configure_model(self) -> None:
        if not hasattr(self, "late"):
            self.late = torch.nn.Linear(1, 1).requires_grad_(False)
            self.register_buffer("steps", torch.zeros(()), persistent=False)

    def on_train_batch_end(self, *args: Any) -> None:
        self.steps += 1


def trainer(**flags: Any) -> L.Trainer:
    return quiet(2, strategy=STRATEGY, **flags)


def whole() -> dict[str, Any]:
    """A fit, then everything else, with what the fit has left here."""
    kept, model = trainer(enable_checkpointing=True, logger=True), Told()
    kept.fit(model, loader(), loader())
    model.training_step(next(iter(loader())), 0)  # logs, outside of any run
    found = {
        "weights": weights(model),
        "loss": kept.callback_metrics["loss"].item(),
        "metrics": sorted(kept.logged_metrics),
        "state": str(kept.state.status.value),
        "epochs": (kept.current_epoch, kept.global_step),
        "log_dir": kept.log_dir,
        "world": kept.world_size,
        "logged": (Path(kept.log_dir or "") / "metrics.csv").is_file(),
    }
    assert kept.checkpoint_callback is not None
    best = kept.checkpoint_callback.best_model_path  # type: ignore[attr-defined]
    found["best"] = (Path(best).is_file(), Told.load_from_checkpoint(best).global_step)
    found["of_best"] = weights(Told.load_from_checkpoint(best))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    found["test"] = kept.test(dataloaders=loader(), verbose=False)  # of the best
    found["tested"] = weights(model)
    found["validate"] = kept.validate(model, loader(), verbose=False)
    predictions = kept.predict(model, loader())
    assert predictions is not None
    found["predict"] = torch.cat(predictions).tolist()
    found["nothing"] = kept.predict(model, loader(), return_predictions=False)
    kept.save_checkpoint("after.ckpt")
    found["saved"] = sorted(torch.load("after.ckpt", weights_only=True))
    return found


def failed(fail: Callable[[], None]) -> dict[str, Any]:
    started = trainer()
    try:
        started.fit(Failing(fail), loader())
    except BaseException as error:
        return {
            "type": type(error).__name__,
            "text": str(error),
            "trace": "".join(traceback.format_exception(error)),
            "state": str(started.state.status.value),
        }
    return {}


def raise_key_error() -> None:
    raise KeyError("this one is broken")


def raise_own() -> None:
    raise Own(number=7)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def grown() -> dict[str, Any]:
    model = Grown()
    trainer().fit(model, loader())
    return {"late": tuple(model.late.weight.shape), "steps": model.steps.item()}


def interrupted(number: int) -> dict[str, Any]:
    """A signal reaches the starting process alone."""
    kept = trainer(enable_checkpointing=True, max_epochs=-1)
    model = Failing(lambda: os.kill(os.getppid(), number))
    before = weights(model)
    kind = ""
    try:
        kept.fit(model, loader())
    except BaseException as error:
        kind = f"{type(error).__name__} {getattr(error, 'code', '')}".strip()
    path = kept.interrupted_path
    return {
        "kind": kind,
        "saved": path is not None and Path(path).is_file(),
        "steps": kept.global_step,
        "trained": weights(model) != before,
        "own_handler": signal.getsignal(number)
        in (
            signal.SIG_DFL,
            signal.default_int_handler,
        ),
    }


CASES: dict[str, Callable[[], Any]] = {"whole": whole, "grown": grown}
if STRATEGY == "ddp_fork":  # a process that has to start costs seconds
    CASES |= {
        "key": lambda: failed(raise_key_error),
        "own": lambda: failed(raise_own),
        "killed": lambda: failed(kill),
        "ctrl_c": lambda: interrupted(signal.SIGINT),
        "terminated": lambda: interrupted(signal.SIGTERM),
    }
else:
    CASES["unsent"] = lambda: failed(lambda: None)

if __name__ == "__main__":
    torch.set_num_threads(1)
    found = {name: case() for name, case in CASES.items()}
    Path("found.json").write_text(json.dumps(found))
