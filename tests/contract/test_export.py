"""Exporting a module, freezing it and gathering from one process, in both packages."""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from recording import OURS, REFERENCE, data, quiet_trainer, small_module

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.parametrize("namespace", [OURS, REFERENCE]),
]


class Exports:
    """What `torch.onnx.export` was called with, in place of an export."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.modes: list[bool] = []

    def __call__(self, module: Any, args: Any, path: Any, **kwargs: Any) -> str:
        self.calls.append((args, path, kwargs))
        self.modes.append(module.training)
        assert not torch.is_grad_enabled()
        return "a program"


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> Exports:
    exports = Exports()
    monkeypatch.setattr(torch.onnx, "export", exports)
    importlib.import_module(REFERENCE)  # before it could find the stand-ins
    for name in ("onnx", "onnxscript"):
        stand_in = ModuleType(name)
        stand_in.__spec__ = ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, stand_in)
    monkeypatch.setattr("lightning.pytorch.core.module._ONNX_AVAILABLE", True)
    return exports


def module_with_forward(namespace: str) -> Any:
    class Module(small_module(namespace)):  # type: ignore[misc]
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x)  # type: ignore[no-any-return]

    return Module()


def inputs_of(namespace: str, call: tuple[Any, ...]) -> Any:
    """Return the positional inputs: Lightning hands on a bare tensor, we a tuple."""
    args = call[0]
    return args if isinstance(args, torch.Tensor) else args[0]


@pytest.mark.parametrize("where", ["argument", "attribute"])
def test_sample_passes_the_hooks_of_a_batch(
    namespace: str, where: str, exports: Exports, tmp_path: Path
) -> None:
    module = module_with_forward(namespace)
    module.on_before_batch_transfer = lambda batch, idx: batch + 1
    module.on_after_batch_transfer = lambda batch, idx: batch * 10
    sample = torch.ones(1, 4)
    if where == "attribute":
        module.example_input_array = sample
    arguments = {"input_sample": sample} if where == "argument" else {}
    made = module.to_onnx(tmp_path / "a.onnx", **arguments, opset_version=18)
    assert made == "a program"
    (call,) = exports.calls
    assert torch.equal(inputs_of(namespace, call), torch.full((1, 4), 20.0))
    assert call[1] == str(tmp_path / "a.onnx")
    assert call[2]["opset_version"] == 18
    assert module.training


def test_hooks_of_the_datamodule_come_first(namespace: str, exports: Exports) -> None:
    base = importlib.import_module(namespace).LightningDataModule

    class Data(base):  # type: ignore[misc,valid-type]
        def train_dataloader(self) -> Any:
            return data()

        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return batch * 3

    class Module(small_module(namespace)):  # type: ignore[misc]
        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return batch * 5

    module = Module()
    quiet_trainer(namespace, max_steps=1).fit(module, datamodule=Data())
    module.to_onnx(None, torch.ones(1, 4))
    assert float(inputs_of(namespace, exports.calls[0]).max()) == 3.0


def test_module_without_a_sample_cannot_be_exported(
    namespace: str, exports: Exports
) -> None:
    with pytest.raises(Exception, match="example_input_array"):
        module_with_forward(namespace).to_onnx("never.onnx")


def test_missing_onnx_is_named(namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setattr("lightning.pytorch.core.module._ONNX_AVAILABLE", False)
    with pytest.raises(ModuleNotFoundError, match="onnx"):
        module_with_forward(namespace).to_onnx("never.onnx", torch.ones(1, 4))


@pytest.mark.parametrize("method", ["script", "trace"])
@pytest.mark.parametrize("attached", [False, True])
def test_torchscript_computes_the_same(
    namespace: str, method: str, attached: bool, tmp_path: Path
) -> None:
    module = module_with_forward(namespace)
    if attached:
        quiet_trainer(namespace, max_steps=1).fit(module, data())
    sample, path = torch.ones(2, 4), tmp_path / "module.pt"
    with pytest.warns(Warning, match="to_torchscript"):
        made = module.to_torchscript(path, method=method, example_inputs=sample)
    expected = module(sample)
    assert torch.equal(made(sample), expected)
    assert torch.equal(torch.jit.load(path)(sample), expected)
    assert module.training


def test_other_ways_to_torchscript_are_refused(namespace: str) -> None:
    with pytest.raises(Exception, match="compile"):
        module_with_forward(namespace).to_torchscript(method="compile")


def test_freezing_returns_the_module(namespace: str) -> None:
    module = module_with_forward(namespace)
    assert module.freeze() is module
    assert not module.training
    assert not any(p.requires_grad for p in module.parameters())
    assert module.unfreeze() is module
    assert module.training
    assert all(p.requires_grad for p in module.parameters())


def test_gathering_from_one_process_changes_nothing_but_numbers(namespace: str) -> None:
    seen: list[Any] = []

    class Module(small_module(namespace)):  # type: ignore[misc]
        def on_train_start(self) -> None:
            tensor = torch.ones(2)
            seen.append(self.all_gather({"a": [1.5, tensor], "b": 2}))
            seen.append(self.all_gather(tensor, group=None, sync_grads=True))

    quiet_trainer(namespace, max_steps=1).fit(Module(), data())
    nested, plain = seen
    assert torch.equal(plain, torch.ones(2))
    assert torch.equal(nested["a"][1], torch.ones(2))
    assert [float(nested["a"][0]), float(nested["b"])] == [1.5, 2.0]
    assert isinstance(nested["b"], torch.Tensor)
