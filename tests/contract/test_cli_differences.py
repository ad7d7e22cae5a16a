"""What command lines do otherwise on purpose, shown on both packages."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_parts import NAMESPACES
from cli_side import Side

OURS = NAMESPACES[0]
BOTH = pytest.mark.parametrize("namespace", NAMESPACES)
BY_CONFIG = {"_instantiator": "lightning.pytorch.cli.instantiate_module"}

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "argv", ["prog"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("strange", None)


def saved(model: Any, **hparams: Any) -> str:
    content = {"state_dict": model.state_dict(), "hyper_parameters": hparams}
    torch.save({**content, "pytorch-lightning_version": "2.6.6"}, "a.ckpt")
    return "a.ckpt"


@BOTH
def test_class_of_a_checkpoint_that_nobody_imported(namespace: str) -> None:
    side = Side(namespace)
    Path("strange.py").write_text(
        "import cli_parts\n\nclass Strange(cli_parts.Encoder):\n    pass\n"
    )
    model = side.Encoding(torch.nn.Identity())
    encoder = {"class_path": "strange.Strange", "init_args": {"width": 3}}
    path = saved(model, encoder=encoder, **BY_CONFIG)
    if namespace == OURS:
        with pytest.raises(
            side.L.pytorch.utilities.exceptions.MisconfigurationException
        ):
            side.Encoding.load_from_checkpoint(path, strict=False)
    else:
        loaded = side.Encoding.load_from_checkpoint(path, strict=False)
        assert type(loaded.encoder).__name__ == "Strange"
    assert ("strange" in sys.modules) is (namespace != OURS)


@BOTH
def test_hyperparameter_of_a_checkpoint_that_is_no_argument(namespace: str) -> None:
    side = Side(namespace)
    path = saved(side.Model(hidden=3), hidden=3, former=1)
    if namespace == OURS:
        cli = side.run(side.Model, "test", f"--ckpt_path={path}")
        assert cli.model.layer.out_features == 3
    else:
        with pytest.raises(SystemExit):
            side.run(side.Model, "test", f"--ckpt_path={path}")
