"""Exporting: modes, forms of a sample, and the real exporters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import Small

from lightgen_runtime import LightningModule
from lightgen_runtime.utilities.exceptions import (
    MisconfigurationException,
    MissingDependencyError,
)


class TwoInputs(Small):
    def __init__(self) -> None:
        super().__init__()
        self.drop = torch.nn.Dropout(0.5)
        self.norm = torch.nn.BatchNorm1d(1)

    def forward(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.norm(self.drop(self.layer(x))) * scale
        return output


SAMPLE = torch.ones(3, 4)
FORMS = {
    "a tuple": (SAMPLE, torch.tensor(2.0)),
    "a dictionary": {"x": SAMPLE, "scale": torch.tensor(2.0)},
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("form", FORMS)
def test_sample_may_be_several_arguments(form: str) -> None:
    module = TwoInputs()
    module.norm.eval()
    module.example_input_array = FORMS[form]
    traced = module.to_torchscript(method="trace")
    modes = [module.training, module.drop.training, module.norm.training]
    assert modes == [True, True, False]
    expected = module.eval()(SAMPLE, torch.tensor(2.0))
    assert torch.equal(traced(SAMPLE, torch.tensor(2.0)), expected)


def test_missing_sample_says_what_to_set() -> None:
    with (
        pytest.warns(DeprecationWarning, match=r"torch\.export"),
        pytest.raises(MisconfigurationException, match=r"`self\.example_input_array`"),
    ):
        Small().to_torchscript(method="trace")


def test_missing_package_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(MissingDependencyError, match="pip install onnx onnxscript"):
        Small().to_onnx("never.onnx", SAMPLE)


def test_torchscript_is_told_of_every_property() -> None:
    properties = {
        name
        for base in LightningModule.__mro__
        if base.__module__.startswith("lightgen_runtime")
        for name, member in vars(base).items()
        if isinstance(member, property)
    }
    assert properties == set(LightningModule.__jit_unused_properties__)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", FORMS)
def test_real_export(form: str, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
    evaluator: Any = pytest.importorskip("onnx.reference").ReferenceEvaluator
    module, path = TwoInputs(), tmp_path / "module.onnx"
    module.to_onnx(path, FORMS[form])
    graph = onnx.load(path).graph
    # In evaluation mode there is nothing random left.
    assert "Dropout" not in {node.op_type for node in graph.node}
    inputs = dict(
        zip(
            [given.name for given in graph.input],
            [SAMPLE.numpy(), torch.tensor(2.0).numpy()],
            strict=True,
        )
    )
    (found,) = evaluator(str(path)).run(None, inputs)
    expected = module.eval()(SAMPLE, torch.tensor(2.0))
    assert torch.allclose(torch.from_numpy(found), expected, atol=1e-6)
