"""What the documentation shows is run as it stands."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import softplus
from torch.utils.data import DataLoader

import lightgen
import lightgen_runtime

ROOT = Path(__file__).parents[3]


def modules() -> list[str]:
    """Name every module of both packages."""
    return [
        info.name
        for package in (lightgen, lightgen_runtime)
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        if not info.name.endswith("__main__")
    ]


@pytest.mark.parametrize("name", modules())
def test_examples_in_docstrings_hold(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = doctest.testmod(
        importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE
    )
    assert outcome.failed == 0


def test_public_entry_points_have_examples() -> None:
    for owner in (
        lightgen_runtime.Trainer,
        lightgen_runtime.LightningModule,
        lightgen_runtime.LightningDataModule,
    ):
        assert ">>>" in str(owner.__doc__), owner


def examples_of(page: str) -> list[str]:
    """Every block of Python of a page, without comments."""
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return [re.sub(r"  # .*", "", block) for block in blocks]


def test_readme_example_learns_its_slope(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    line, gan = examples_of("README.md")
    assert examples_of("docs/zh-TW/README.md") == [line]
    names: dict[str, Any] = {}
    exec(line, names)
    slope = names["trainer"].lightning_module.slope.item()
    assert slope == pytest.approx(2, abs=0.1)
    exec(gan, names)
    train_the_gan(names["GAN"])


def train_the_gan(example: type[lightgen_runtime.LightningModule]) -> None:
    class Complete(example):  # type: ignore[valid-type, misc]
        def __init__(self) -> None:
            super().__init__()
            self.generator = torch.nn.Linear(16, 4)
            self.discriminator = torch.nn.Linear(4, 1)

        def fooled(self, fake: torch.Tensor) -> torch.Tensor:
            return softplus(-self.discriminator(fake)).mean()

        def told_apart(self, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
            found = self.discriminator(torch.cat([real, -fake]))
            return softplus(-found).mean()

    module = Complete()
    before = [parameter.detach().clone() for parameter in module.parameters()]
    trainer = lightgen_runtime.Trainer(max_epochs=1, enable_progress_bar=False)
    trainer.fit(module, DataLoader(torch.randn(32, 4), batch_size=8))
    assert trainer.global_step == 4
    for parameter, old in zip(module.parameters(), before, strict=True):
        assert not torch.equal(parameter, old)


def test_relative_links_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    assert pages
    for page in pages:
        links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
        for link in links:
            assert (page.parent / link).exists(), f"{page.name}: {link}"
