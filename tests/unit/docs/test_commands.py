"""The commands that a page shows exist, and take its options; its links lead somewhere."""

from __future__ import annotations

import inspect
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from lightgen.cli import app
from lightgen.cluster.kubernetes import KubernetesJob
from lightgen.cluster.slurm import SlurmJob
from lightgen.cluster.torchrun import TorchrunJob
from lightgen_runtime import Trainer

ROOT = Path(__file__).parents[3]
PAGES = ("README.md", "docs/howto/scale.md", "templates/README.md")
# Settings of the project that `lightgen new mymodel --defaults` writes.
PROJECT_SETTINGS = {"--model.lr", "--data.batch_size"}
JOB_FILES = {job.file for job in (KubernetesJob, SlurmJob, TorchrunJob)}
STARTERS = ("sbatch", "bash", "kubectl")
PROGRAMS = ("lightgen", "make", *STARTERS)


def commands_of(page: str, until: str | None = None) -> list[str]:
    """Every command of a page's indented lines, without comments.

    Commands behind a prompt stand over what they print, mistakes among them.
    """
    text = (ROOT / page).read_text(encoding="utf-8").replace("\\\n", " ")
    text = text.partition(until)[0] if until else text
    lines = re.findall(r"^    (\S.*)$", text, re.MULTILINE)
    found = [re.split(r"\s+#", line)[0] for line in lines]
    return [line for line in found if line.split(" ")[0] in PROGRAMS]


def commands() -> list[str]:
    """Every command of all pages."""
    return [command for page in PAGES for command in commands_of(page)]


def test_pages_have_commands() -> None:
    assert sum(command.startswith("lightgen ") for command in commands()) > 50


@pytest.mark.parametrize("command", commands())
def test_command_is_understood(command: str) -> None:
    program, *words = shlex.split(command)
    if program == "lightgen":
        check_settings(parsed(words))
    elif program == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert all(re.search(rf"^{word}:", makefile, re.MULTILINE) for word in words)
    else:
        (file,) = JOB_FILES & set(words)
        check_settings(words[words.index(file) :])  # before it stands the starter's


def parsed(words: list[str]) -> list[str]:
    """Parse a command of lightgen's; return what it hands on to the program."""
    command: Any = get_command(app)
    while hasattr(command, "commands"):
        command = command.commands[words[0]]
        words = words[1:]
    return list(command.make_context("lightgen", words).args)


def check_settings(words: list[str]) -> None:
    trainer = {f"--trainer.{name}" for name in inspect.signature(Trainer).parameters}
    for word in words:
        if word.startswith("--") and word != "--resume":
            assert word in trainer | PROJECT_SETTINGS, word


@pytest.mark.parametrize(
    ("page", "until"),
    [("README.md", "## Working on lightgen"), ("docs/howto/scale.md", None)],
)
def test_translation_shows_the_same_commands(page: str, until: str | None) -> None:
    translated = f"docs/zh-TW/{page.removeprefix('docs/')}"
    assert commands_of(translated) == commands_of(page, until)


@pytest.mark.parametrize(
    "page",
    ["README.md", *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/**/*.md"))],
)
def test_links_lead_to_files(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert ((ROOT / page).parent / target).exists(), target
