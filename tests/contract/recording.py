"""Modules and callbacks that write down what is called, for either package."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import torch
from torch.utils.data import DataLoader

OURS, REFERENCE = "lightgen_runtime", "lightning"

MODULE_HOOKS = [
    "configure_callbacks",
    "prepare_data",
    "setup",
    "configure_model",
    "configure_optimizers",
    "on_fit_start",
    "on_fit_end",
    "on_train_start",
    "on_train_end",
    "on_train_epoch_start",
    "on_train_epoch_end",
    "on_train_batch_start",
    "on_train_batch_end",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_validation_model_zero_grad",
    "on_validation_model_train",
    "on_test_model_train",
    "training_step",
    "validation_step",
    "test_step",
    "predict_step",
    "configure_gradient_clipping",
    "lr_scheduler_step",
    "on_save_checkpoint",
    "on_load_checkpoint",
    "teardown",
    *(
        f"on_{stage}_{part}"
        for stage in ("validation", "test", "predict")
        for part in (
            "model_eval",
            "start",
            "end",
            "epoch_start",
            "epoch_end",
            "batch_start",
            "batch_end",
        )
    ),
]
STEPPING_HOOKS = ["optimizer_step", "optimizer_zero_grad", "backward"]


def data(rows: int = 8, batch_size: int = 2, **kwargs: Any) -> DataLoader[Any]:
    """Return a loader of fixed rows of 4 numbers."""
    generator = torch.Generator().manual_seed(0)
    return DataLoader(
        torch.randn(rows, 4, generator=generator), batch_size=batch_size, **kwargs
    )


def small_module(namespace: str) -> type[Any]:
    """Return a module class of either package that trains `Linear(4, 1)`."""
    L = importlib.import_module(namespace)

    class Small(L.LightningModule):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer = torch.nn.Linear(4, 1)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self.layer(batch).pow(2).mean()

        def validation_step(self, batch: Any, batch_idx: int) -> Any:
            self.layer(batch)

        def test_step(self, batch: Any, batch_idx: int) -> Any:
            self.layer(batch)

        def predict_step(self, batch: Any, batch_idx: int) -> Any:
            return self.layer(batch)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    return Small


def quiet_trainer(namespace: str, **flags: Any) -> Any:
    """Return a trainer of either package that prints and writes nothing by itself."""
    L = importlib.import_module(namespace)
    defaults = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return L.Trainer(**{**defaults, **flags})


def module_with(namespace: str, **members: Any) -> Any:
    """Return a small module whose class has these methods or attributes instead."""
    return type("Module", (small_module(namespace),), members)()


def callbacks_of(namespace: str) -> Any:
    """Return the module of either package's callbacks."""
    return importlib.import_module(f"{namespace}.pytorch.callbacks")


def memory_logger(namespace: str) -> Any:
    """Return a logger of either package that keeps what it is sent."""
    base = importlib.import_module(f"{namespace}.pytorch.loggers").Logger

    class MemoryLogger(base):  # type: ignore[misc,valid-type]
        def __init__(self) -> None:
            super().__init__()
            self.rows: list[tuple[int, dict[str, float]]] = []

        @property
        def name(self) -> str:
            return "memory"

        @property
        def version(self) -> int:
            return 0

        def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
            pass

        def log_metrics(self, metrics: Any, step: Any = None) -> None:
            self.rows.append((step, {k: float(v) for k, v in metrics.items()}))

    return MemoryLogger()


def recording(base: type[Any], log: list[str], who: str, hooks: list[str]) -> type[Any]:
    """Return a subclass of `base` whose hooks write their name to `log` first."""

    def wrap(name: str) -> Any:
        original = getattr(base, name)

        def hook(self: Any, *args: Any, **kwargs: Any) -> Any:
            log.append(f"{who}.{name}")
            return original(self, *args, **kwargs)

        hook.__signature__ = inspect.signature(original)  # type: ignore[attr-defined]
        hook.__name__ = name
        return hook

    return type(f"Recording{base.__name__}", (base,), {n: wrap(n) for n in hooks})


def without_the_question(log: list[str]) -> list[str]:
    """Leave out what only ours asks before a fit that saves: what there will be to save.

    Each is asked once, before training: `test_hook_before_a_file_is_written`.
    """
    names = [entry.rpartition(".")[2] for entry in log]
    starts = [n for n, name in enumerate(names) if name == "on_sanity_check_start"]
    asking = ("state_dict", "on_save_checkpoint")
    asked = [n for n in range(starts[0]) if names[n] in asking]
    assert len({log[n] for n in asked}) == len(asked) > 0
    return [entry for n, entry in enumerate(log) if n not in asked]


def callback_hooks(namespace: str) -> list[str]:
    """Return the names of all hooks of the package's callbacks."""
    L = importlib.import_module(namespace)
    extra = ["setup", "teardown", "state_dict", "load_state_dict"]
    return [name for name in dir(L.Callback) if name.startswith("on_")] + extra
