"""Names of checkpoints: folders, templates filled with metrics, links between files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING

from torch import Tensor

from lightgen_runtime.io import location
from lightgen_runtime.io.folder_leftovers import discard, former
from lightgen_runtime.utilities.atomic_write import temporary_beside
from lightgen_runtime.utilities.exceptions import MisconfigurationException

if TYPE_CHECKING:
    from lightgen_runtime.trainer.trainer import Trainer


def check_template(template: str) -> None:
    """Refuse a `template` that could never be filled.

    Raises:
        MisconfigurationException: A brace is open, or a field has no name.
    """
    try:
        fields = [field for _, field, _, _ in Formatter().parse(template)]
    except ValueError as error:
        raise MisconfigurationException(
            f"`filename={template!r}` is not a template: {error}. Write each metric as "
            "`{name}` or `{name:.2f}`, and a brace itself as `{{`."
        ) from error
    if "" in fields:
        raise MisconfigurationException(
            f"`filename={template!r}` has a field without a name. Write the metric's "
            "name between the braces, e.g. `{epoch}` or `{val_loss:.2f}`."
        )


def fill_template(
    template: str, metrics: Mapping[str, Tensor], equals: str | None
) -> str:
    """Replace each `{name:format}` of `template` by the metric of that name.

    Args:
        template: A file name without extension. The names may hold slashes.
        metrics: Scalars by name; one that is missing counts as 0.
        equals: Put between the name and its value; `None` leaves the name out.

    Raises:
        MisconfigurationException: A value cannot be written in the format given.
    """
    parts: list[str] = []
    for literal, name, spec, _ in Formatter().parse(template):
        parts.append(literal)
        if name is None:
            continue
        value = metrics[name].item() if name in metrics else 0
        if equals is not None:
            parts += [name, equals]
        try:
            parts.append(format(value, spec or ""))
        except ValueError as error:
            raise MisconfigurationException(
                f"`filename={template!r}`: the metric `{name}` is {value!r}, which the "
                f"format `{spec}` cannot show ({error})."
            ) from error
    return "".join(parts)


def link_file(target: Path, link: Path) -> None:
    """Make `link` point to `target`, replacing what it was, in one step.

    Where the file system has no links, `link` becomes a copy.
    """
    temporary = temporary_beside(link)
    try:
        temporary.symlink_to(os.path.relpath(target, link.parent))
    except OSError:
        copy = shutil.copytree if target.is_dir() else shutil.copy2
        copy(target, temporary)
    aside = former(link)
    if link.is_dir() or temporary.is_dir():  # no rename replaces a folder
        discard(aside)
        with suppress(FileNotFoundError):
            link.rename(aside)
    temporary.replace(link)
    discard(aside)


def default_folder(trainer: Trainer) -> str:
    """Return the checkpoint folder of the run's first logger, or of the root."""
    if not trainer.loggers:
        return location.join(trainer.default_root_dir, "checkpoints")
    logger = trainer.loggers[0]
    version = logger.version
    folder = version if isinstance(version, str) else f"version_{version}"
    root = logger.save_dir or trainer.default_root_dir
    for part in (logger.name or "", folder, "checkpoints"):
        root = location.join(root, part) if part else root
    return str(root)


def check_triggers(**triggers: int | timedelta | None) -> None:
    """Refuse negative triggers, and more than one.

    Raises:
        MisconfigurationException: A value is not accepted, or two exclude each other.
    """
    for name, value in triggers.items():
        if isinstance(value, int) and value < 0:
            raise MisconfigurationException(
                f"`{name}={value}` is not accepted. Use 0 for never, or a positive number."
            )
    # A `timedelta` of zero is a trigger: every batch.
    given = [
        f"`{name}={value}`"
        for name, value in triggers.items()
        if value or isinstance(value, timedelta)
    ]
    if len(given) > 1:
        raise MisconfigurationException(
            f"{' and '.join(given)} exclude each other. Keep one, or add a second "
            "ModelCheckpoint."
        )
