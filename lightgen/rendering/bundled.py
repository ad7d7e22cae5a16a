"""The templates that come with lightgen.

In the source tree and in the wheel a template is a folder beside `_shared/`, the
partials that templates have in common. copier reads nothing outside a template's own
folder, so a template is used, and exported, with a copy of `_shared/` inside.
"""

from __future__ import annotations

from pathlib import Path

from lightgen.errors import UnknownTemplateError, did_you_mean, listing
from lightgen.project.tree import FileTree, TreeFile, read_tree
from lightgen.rendering.template import CONFIG_NAMES, TemplateConfig, read_config

DEFAULT_TEMPLATE = "vision"
_SHARED = "_shared"


def bundled_root() -> Path:
    """Return the folder of templates: inside the wheel, else in the source tree."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "_templates"
    return installed if installed.is_dir() else package.parent / "templates"


def bundled_names() -> list[str]:
    """List the bundled templates by name."""
    return sorted(
        config.parent.name
        for name in CONFIG_NAMES
        for config in bundled_root().glob(f"*/{name}")
        if not config.parent.name.startswith("_")
    )


def bundled_config(name: str) -> TemplateConfig:
    """Read the questions of one bundled template.

    Raises:
        UnknownTemplateError: If there is no such template.
    """
    return read_config(_bundled_folder(name), shown_as=name)


def bundled_files(name: str) -> FileTree:
    """Collect one bundled template with its copy of the shared partials.

    Raises:
        UnknownTemplateError: If there is no such template.
    """
    files = _source_files(_bundled_folder(name))
    for path, file in _source_files(bundled_root() / _SHARED).items():
        files[f"{_SHARED}/{path}"] = file
    return files


def unknown_template(name: str, *, where: str) -> UnknownTemplateError:
    """Build the error for a reference that is no template at all."""
    names = bundled_names()
    return UnknownTemplateError(
        f"there is no template `{name}`",
        where=where,
        accepted=f"{listing(names)}; for `new` also a folder or a git address",
        todo=did_you_mean(name, names, "lightgen templates list"),
    )


def _bundled_folder(name: str) -> Path:
    if name not in bundled_names():
        raise unknown_template(name, where="argument NAME")
    return bundled_root() / name


def _source_files(folder: Path) -> dict[str, TreeFile]:
    if not folder.is_dir():
        return {}
    return {
        path: file
        for path, file in read_tree(folder).items()
        if "__pycache__" not in path.split("/")
    }
