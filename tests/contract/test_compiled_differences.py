"""What becomes of modules that went through `torch.compile`: in both packages."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from recording import data, quiet_trainer, small_module
from test_precision import OURS, REFERENCE

from lightgen_runtime.utilities.exceptions import MisconfigurationException

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def with_compiled_part(namespace: str) -> Any:
    def init(self: Any) -> None:
        base.__init__(self)
        self.layer = torch.compile(self.layer, backend="eager")

    base = small_module(namespace)
    return type("Module", (base,), {"__init__": init})


def test_names_of_compiled_parts_in_checkpoints(tmp_path: Path) -> None:
    def saved(namespace: str) -> Path:
        path = tmp_path / f"{namespace}.ckpt"
        trainer = quiet_trainer(namespace, max_epochs=1)
        trainer.fit(with_compiled_part(namespace)(), data(4))
        trainer.save_checkpoint(path)
        return path

    reference, ours = saved(REFERENCE), saved(OURS)
    names = [
        list(torch.load(path, weights_only=True)["state_dict"])
        for path in (reference, ours)
    ]
    assert names[0] == ["layer._orig_mod.weight", "layer._orig_mod.bias"]
    assert names[1] == ["layer.weight", "layer.bias"]
    # Here, either loads into either; there, as it was written.
    for path in (reference, ours):
        for make in (small_module(OURS), with_compiled_part(OURS)):
            make.load_from_checkpoint(path)
    small_module(REFERENCE).load_from_checkpoint(ours)
    with pytest.raises(RuntimeError, match="_orig_mod"):
        with_compiled_part(REFERENCE).load_from_checkpoint(ours)
    with pytest.raises(RuntimeError, match="_orig_mod"):
        small_module(REFERENCE).load_from_checkpoint(reference)


def test_methods_of_a_compiled_module() -> None:
    def replaced(namespace: str) -> tuple[bool, bool]:
        module = small_module(namespace)()
        before = module.layer.weight.detach().clone()
        trainer = quiet_trainer(namespace, max_epochs=1)
        trainer.fit(torch.compile(module, backend="eager"), data(4))
        trained = not torch.equal(module.layer.weight, before)
        return trained, "training_step" in vars(module)

    assert replaced(REFERENCE) == (True, True)
    assert replaced(OURS) == (True, False)


def test_module_that_has_not_been_compiled() -> None:
    def take_apart(namespace: str) -> None:
        path = f"{namespace}.pytorch.utilities.compile"
        importlib.import_module(path).to_uncompiled(small_module(namespace)())

    with pytest.raises(ValueError, match="non-compiled"):
        take_apart(REFERENCE)
    with pytest.raises(MisconfigurationException, match="has not been compiled"):
        take_apart(OURS)
