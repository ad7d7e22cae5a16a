"""Reads what a template says about itself in `copier.yml`.

Follows copier's reading of that file (several documents, `!include` of files inside the
template, short questions) without importing copier, and refuses what would run code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from lightgen.errors import TemplateFormatError, UntrustedTemplateError, listing

if TYPE_CHECKING:
    import yaml

CONFIG_NAMES = ("copier.yml", "copier.yaml")
_UNSAFE_KEYS = ("_tasks", "_migrations", "_jinja_extensions")
_TYPE_NAMES = frozenset({"bool", "float", "int", "json", "path", "str", "yaml"})


@dataclass(frozen=True)
class Question:
    """One question of a template.

    Attributes:
        name: The key of `--data`.
        type_name: copier's name of the type; may itself be a Jinja expression.
        default: The default, possibly a Jinja expression; None without one.
        choices: The values to choose from; empty when free or computed.
        help: The author's explanation.
        multiselect: Several choices make up an answer.
        secret: The answer is not recorded.
        hidden: Never asked; the author computes it.
    """

    name: str
    type_name: str
    default: Any
    choices: tuple[Any, ...]
    help: str
    multiselect: bool
    secret: bool
    hidden: bool


@dataclass(frozen=True)
class TemplateConfig:
    """The questions of a template, and the features it would need trust for."""

    questions: Mapping[str, Question]
    unsafe_features: tuple[str, ...]

    @property
    def title(self) -> str:
        """The author's one-line title, or an empty text."""
        return self._hidden_default("template_title")

    @property
    def version(self) -> str:
        """The author's version, or an empty text."""
        return self._hidden_default("template_version")

    @property
    def optimizer_spec(self) -> Mapping[str, Any] | None:
        """What the optimizer block was generated from; None without one."""
        question = self.questions.get("optimizer_spec")
        default = question.default if question and question.hidden else None
        return default if isinstance(default, Mapping) else None

    @property
    def askable(self) -> dict[str, Question]:
        """The questions that a user may answer; the package is the project's NAME."""
        return {
            name: question
            for name, question in self.questions.items()
            if not question.hidden and name != "package"
        }

    def _hidden_default(self, name: str) -> str:
        question = self.questions.get(name)
        return str(question.default) if question and question.hidden else ""


def read_config(folder: Path, *, shown_as: str) -> TemplateConfig:
    """Read the configuration of the template in `folder`.

    Args:
        folder: The template's root.
        shown_as: How the user referred to the template.

    Raises:
        TemplateFormatError: If `copier.yml` is missing, doubled or broken.
    """
    paths = [folder / name for name in CONFIG_NAMES if (folder / name).is_file()]
    if len(paths) != 1:
        found = "has no copier.yml" if not paths else "has both copier.yml and .yaml"
        raise TemplateFormatError(
            f"the template `{shown_as}` {found}",
            where="option --template",
            accepted="a folder or repository with one copier.yml at its top",
            todo="name such a folder, or see: lightgen templates list",
        )
    return _load(paths[0], shown_as)


def refuse_unsafe(config: TemplateConfig, *, shown_as: str) -> None:
    """Refuse a template that would run code of its own.

    Raises:
        UntrustedTemplateError: Naming the features.
    """
    if not config.unsafe_features:
        return
    keys = listing(f"_{feature}" for feature in config.unsafe_features)
    raise untrusted(shown_as, keys)


def untrusted(shown_as: str, keys: str) -> UntrustedTemplateError:
    """Build the error for a template that would run code, by the settings `keys`."""
    return UntrustedTemplateError(
        f"the template `{shown_as}` wants to run code of its own: {keys}",
        where="its copier.yml",
        accepted="templates that only render files; lightgen never runs a template's "
        "tasks, migrations or Jinja extensions",
        todo="remove these keys from a copy of the template, or, if you trust it, use "
        "copier itself",
    )


def _load(path: Path, shown_as: str) -> TemplateConfig:
    import yaml

    try:
        return _config(_documents(path, path.parent.resolve(), yaml))
    except RecursionError as error:
        reason = "it includes itself, or is nested too deeply"
        raise _unreadable(path, shown_as, reason) from error
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, TypeError) as error:
        raise _unreadable(path, shown_as, str(error)) from error


def _unreadable(path: Path, shown_as: str, reason: str) -> TemplateFormatError:
    return TemplateFormatError(
        f"the configuration of the template `{shown_as}` cannot be read: {reason}",
        where=str(path),
        accepted="a YAML mapping of settings and questions, as copier defines it",
        todo="report it to the template's author",
    )


def _config(documents: list[dict[str, Any]]) -> TemplateConfig:
    """Merge all documents; later ones win, as in copier."""
    merged: dict[str, Any] = {}
    for document in documents:
        # A later document must not take back that an earlier one runs code.
        for key in _UNSAFE_KEYS:
            document[key] = document.get(key) or merged.get(key)
        merged.update(document)
    if not all(isinstance(key, str) for key in merged):
        raise ValueError("a key is not a text")
    return TemplateConfig(
        questions={
            name: _question(name, raw)
            for name, raw in merged.items()
            if name[:1] != "_"
        },
        unsafe_features=tuple(key[1:] for key in _UNSAFE_KEYS if merged.get(key)),
    )


def _documents(path: Path, root: Path, yaml: Any) -> list[dict[str, Any]]:
    """Read all mappings in the file at `path`, with what it includes."""

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """Knows `!include`, without teaching it to everybody's loader."""

    def include(_: yaml.SafeLoader, node: yaml.ScalarNode) -> list[dict[str, Any]]:
        pattern = str(node.value)
        if PurePosixPath(pattern).is_absolute():
            raise ValueError(f"`!include {pattern}` is not a relative path")
        found = [included.resolve() for included in sorted(root.glob(pattern))]
        if not all(included.is_relative_to(root) for included in found):
            raise ValueError(f"`!include {pattern}` leaves the template")
        return [part for file in found for part in _documents(file, root, yaml)]

    Loader.add_constructor("!include", include)
    with path.open("rb") as stream:
        return _flatten(list(yaml.load_all(stream, Loader=Loader)))


def _flatten(value: Any) -> list[dict[str, Any]]:
    if not value:
        return []
    if isinstance(value, dict):
        return [value]
    if isinstance(value, list):
        return [part for item in value for part in _flatten(item)]
    raise ValueError(f"{value!r} is no mapping")


def _question(name: str, raw: Any) -> Question:
    details = raw if isinstance(raw, dict) else {"default": raw}
    default = details.get("default")
    inferred = type(default).__name__
    type_name = details.get("type") or (inferred if inferred in _TYPE_NAMES else "yaml")
    if not isinstance(type_name, str):
        raise ValueError(f"the type of `{name}` is {type_name!r}, not a text")
    return Question(
        name=name,
        type_name=type_name,
        default=default,
        choices=_choice_values(details.get("choices")),
        help=str(details.get("help", "")),
        multiselect=bool(details.get("multiselect")),
        secret=bool(details.get("secret")),
        hidden=details.get("when") is False,
    )


def _choice_values(choices: Any) -> tuple[Any, ...]:
    """Return plain choices; none when they are computed or carry conditions."""
    if isinstance(choices, dict):
        values = list(choices.values())
    elif isinstance(choices, list):
        values = [
            choice[1] if isinstance(choice, list) and len(choice) == 2 else choice
            for choice in choices
        ]
    else:
        return ()
    plain = all(isinstance(value, str | int | float | bool) for value in values)
    return tuple(values) if plain else ()
