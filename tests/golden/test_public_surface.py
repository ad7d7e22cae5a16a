"""The public surface as files: what changes there, changes for somebody.

`make golden` writes the files again and shows what is different.
"""

import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import lightgen_runtime
from lightgen_runtime import callbacks, loggers
from lightgen_runtime.core.hooks import HOOKS

FOLDER = Path(__file__).parent / "public_surface"
VERBS = ["", "new", "train", "validate", "test", "predict", "export"]
VERBS += [
    f"ckpt {verb}".strip() for verb in ("", "inspect", "verify", "diff", "convert")
]
VERBS += [f"cluster {verb}".strip() for verb in ("", "slurm", "kubernetes", "torchrun")]
VERBS += ["regen", "regen optimizer", "adopt", "optimizers", "lr"]
VERBS += ["status", "doctor", "undo", "redo"]
VERBS += [f"templates {verb}".strip() for verb in ("", "list", "show", "export")]


def _compare(name: str, text: str) -> None:
    """Compare with the golden file, or write it where that is asked for."""
    path = FOLDER / name
    if os.environ.get("UPDATE_GOLDEN") == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text, "if it is meant: make golden"


@pytest.mark.parametrize("verb", VERBS)
def test_help_is_as_recorded(verb: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lightgen", *verb.split(), "--help"],
        env={**os.environ, "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=True,
    )
    name = "-".join(["lightgen", *verb.split()])
    _compare(f"{name}.txt", done.stdout)


def _members(owner: type, skipped: type) -> Iterator[str]:
    """Public names of `owner` and its bases, less those that `skipped` has too."""
    for name in sorted(set(dir(owner)) - set(dir(skipped))):
        if not name.startswith("_"):
            member = inspect.getattr_static(owner, name)
            yield f"  {name}{_arguments(member) if callable(member) else ''}"


def _arguments(function: object) -> str:
    """Argument names and defaults; annotations are mypy's to check."""
    function = inspect.unwrap(function)  # type: ignore[arg-type]
    parameters = inspect.signature(function).parameters.values()
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in parameters]
    return str(inspect.Signature(bare))


def test_runtime_names_are_as_recorded() -> None:
    import torch

    lines = ["lightgen_runtime", *(f"  {n}" for n in sorted(lightgen_runtime.__all__))]
    lines += ["callbacks", *(f"  {n}" for n in sorted(callbacks.__all__))]
    lines += ["loggers", *(f"  {n}" for n in sorted(loggers.__all__))]
    for name, skipped in (
        ("Trainer", object),
        ("LightningModule", torch.nn.Module),
        ("LightningDataModule", object),
        ("Callback", object),
    ):
        owner = getattr(lightgen_runtime, name)
        lines += [name + _arguments(owner.__init__), *_members(owner, skipped)]
    trainer = lightgen_runtime.Trainer(accelerator="cpu", logger=False, max_epochs=1)
    attributes = sorted(name for name in vars(trainer) if not name.startswith("_"))
    lines += ["a Trainer's own attributes", *(f"  {name}" for name in attributes)]
    _compare("runtime.txt", "\n".join(lines) + "\n")


def test_hooks_are_as_recorded() -> None:
    lines = [f"{hook.name}: {', '.join(hook.owners)}" for hook in HOOKS]
    _compare("hooks.txt", "\n".join(lines) + "\n")
