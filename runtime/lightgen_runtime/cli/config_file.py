"""Reading a config file so that every key and value knows its line.

Owns what can be wrong with a file before anyone asks what its keys mean: not there, not
YAML, not a mapping, a key twice. `config_errors` judges keys and values.
"""

from __future__ import annotations

import argparse
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import (  # type: ignore[attr-defined]
    ActionConfigFile,
    ArgumentParser,
    get_loader,
)

from lightgen_runtime.cli.suggestion import did_you_mean

INLINE = "--config"  # stands for the file name where the config is given as text


class ConfigError(TypeError):
    """A config cannot be used; the message is complete, with file and line.

    It is a `TypeError` because that is what jsonargparse lets an argument raise.
    """


@dataclass(frozen=True)
class Config:
    """The content of one config.

    Attributes:
        label: The file as the user named it.
        data: What it says.
        node: The same as a YAML node, whose parts know their lines.
    """

    label: str
    data: dict[str, Any]
    node: yaml.MappingNode


class ConfigFileAction(ActionConfigFile):
    """The `--config` argument: a YAML file, or the YAML itself."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Merge the config into `namespace`, once it is known to be sound YAML."""
        assert isinstance(parser, ArgumentParser)
        # A class to choose is a group too, but an argument that may be null.
        chosen = {a.dest for a in parser._actions if hasattr(a, "_typehint")}
        _check_groups(read_config(values), set(parser.groups or {}) - chosen)
        super().__call__(  # type: ignore[no-untyped-call]
            parser, namespace, values, option_string
        )


def _check_groups(config: Config, groups: Container[str]) -> None:
    """Refuse a single value for a group of arguments such as `trainer`.

    jsonargparse would take anything there and fail later, without a line.
    """
    for key_node, value_node in config.node.value:
        key = str(key_node.value)
        # A string names a config file of the group.
        if key in groups and not isinstance(config.data[key], dict | str):
            raise ConfigError(
                f"{config.label}:{line_of(key_node)}: {key}: got "
                f"{value_node.value or 'null'}, expected a mapping of arguments; "
                "remove the key to use the defaults"
            )


def read_config(given: str) -> Config:
    """Read the file, or the YAML text, that was given as a config.

    Raises:
        ConfigError: There is no such file, or its content is not one YAML mapping with
            unique keys.
    """
    label, text = _content(given)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = get_loader("yaml")(text)
    except yaml.MarkedYAMLError as error:
        raise ConfigError(f"{_marked(label, error)}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{label}: not YAML: {error}") from error
    if node is None:
        raise ConfigError(
            f"{label}: the file is empty; expected keys such as `trainer:` or `model:`"
        )
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(
            f"{label}:{line_of(node)}: expected a mapping of keys such as `trainer:` "
            f"or `model:`, got {_kind(node)}"
        )
    for problem in _duplicate_keys(node, ""):
        raise ConfigError(f"{label}:{problem}")
    if not isinstance(data, dict):  # jsonargparse's loader gives `{key: null}` as text
        data = dict.fromkeys(str(key.value) for key, _ in node.value)
    return Config(label, data, node)


def line_of(node: yaml.Node) -> int:
    """Return the line, counted from 1, where `node` starts."""
    return int(node.start_mark.line) + 1


def _content(given: str) -> tuple[str, str]:
    path = Path(given)
    if _is_inline(given):
        return INLINE, given
    if path.is_dir():
        raise ConfigError(f"{given}: is a folder; expected a YAML file")
    if not path.exists():
        raise ConfigError(f"{given}: no such config file{_nearest_file(path)}")
    try:
        return given, path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{given}: not UTF-8 text, so not YAML") from error
    except OSError as error:
        raise ConfigError(f"{given}: cannot be read: {error.strerror}") from error


def _is_inline(given: str) -> bool:
    """Tell YAML text from a path: only text has a line end or a colon and a space."""
    return "\n" in given or ": " in given or given.lstrip().startswith("{")


def _nearest_file(path: Path) -> str:
    if not path.parent.is_dir():
        return f"; the folder {path.parent} does not exist either"
    names = [
        entry.name
        for entry in path.parent.iterdir()
        if entry.suffix in (".yaml", ".yml", ".json")
    ]
    return did_you_mean(path.name, names) or (
        f"; in that folder there are: {', '.join(sorted(names))}" if names else ""
    )


def _marked(label: str, error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
    return f"{label}{place}: not YAML: {error.problem or error.context}"


def _kind(node: yaml.Node) -> str:
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    return f"the single value {str(node.value)[:40]!r}"


def _duplicate_keys(node: yaml.Node, where: str) -> Iterator[str]:
    """Yield `<line>: <message>` for each key that its mapping already has."""
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            yield from _duplicate_keys(child, f"{where}[{index}]")
    elif isinstance(node, yaml.MappingNode):
        first_lines: dict[str, int] = {}
        for key_node, child in node.value:
            key, line = str(key_node.value), line_of(key_node)
            if key in first_lines:
                inside = f" in `{where}`" if where else ""
                yield (
                    f"{line}: key `{key}`{inside} is given twice; "
                    f"the first is in line {first_lines[key]}. Keep one of them"
                )
            first_lines.setdefault(key, line)
            yield from _duplicate_keys(child, f"{where}.{key}" if where else key)
