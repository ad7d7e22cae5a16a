"""Renders bundled templates as `copier copy` would, without lightgen's own steps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import copier
import pytest

from lightgen.rendering.bundled import bundled_files

RenderTemplate = Callable[..., Path]


@pytest.fixture(scope="session")
def assemble(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Writes a template with its shared partials, once a session."""
    root = tmp_path_factory.mktemp("assembled")

    def assemble(template: str) -> Path:
        folder = root / template
        if not folder.exists():
            for path, file in bundled_files(template).items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(file.content)
        return folder

    return assemble


@pytest.fixture
def render_template(assemble: Callable[[str], Path], tmp_path: Path) -> RenderTemplate:
    """Renders `template` with `answers` over its defaults; returns the project."""

    def render(template: str, folder: str = "project", **answers: Any) -> Path:
        project = tmp_path / folder
        copier.run_copy(
            str(assemble(template)),
            project,
            data={"package": "mymodel", **answers},
            settings=copier.Settings(),
            defaults=True,
            quiet=True,
            skip_tasks=True,
            unsafe=False,
        )
        return project

    return render
