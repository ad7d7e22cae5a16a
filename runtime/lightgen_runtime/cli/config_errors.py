"""Saying which key or value of a config or command line is wrong, and where.

jsonargparse alone decides what is accepted. Only when it has refused something, this
module goes over the same input again, in the order the user gave it, and describes the
first key or value that cannot be right. What it cannot explain keeps jsonargparse's own
words, so no valid input is ever refused here.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from jsonargparse import ArgumentParser

from lightgen_runtime.cli.class_paths import ClassPathError, find_class, missing_keys
from lightgen_runtime.cli.config_file import (
    ConfigError,
    ConfigFileAction,
    line_of,
    read_config,
)
from lightgen_runtime.cli.suggestion import (
    did_you_mean,
    names_beside,
    nearest_key,
)
from lightgen_runtime.cli.type_names import classes_in, type_name

_LONGEST_VALUE = 60


def explain_refusal(parser: ArgumentParser, args: Sequence[str], message: str) -> str:
    """Return why `args` were refused: file, line, key, what is accepted.

    Args:
        parser: The parser that was given `args`.
        args: The command line, without the program's name.
        message: jsonargparse's own explanation, for when nothing better is found.
    """
    try:
        return next(_command_line_problems(parser, args), message)
    except ConfigError as error:
        return str(error)


def _command_line_problems(
    parser: ArgumentParser, args: Sequence[str]
) -> Iterator[str]:
    subparsers = _subparsers(parser)
    position = 0
    while position < len(args):
        token = args[position]
        position += 1
        if token in subparsers:
            yield from _command_line_problems(subparsers[token], args[position:])
            return
        if not token.startswith("-"):
            yield _stray_word(token, subparsers)
            continue
        option, has_value, text = token.partition("=")
        action = parser._option_string_actions.get(option)
        if action is None:
            yield from _unknown_option(parser, option)
        takes_value = action is None or action.nargs is None
        if takes_value and not has_value:
            text = args[position] if position < len(args) else "--"
            if not text.startswith("--"):
                position += 1
            elif action is not None:
                yield f"`{option}` needs a value"
        if action is not None and takes_value:
            yield from _option_problems(parser, option, action, text)
    if subparsers:
        yield f"a subcommand is needed; {_accepted(list(subparsers))}"


def _stray_word(word: str, subparsers: Mapping[str, ArgumentParser]) -> str:
    if not subparsers:
        return f"unexpected argument `{word}`; options start with `--`"
    hint = did_you_mean(word, subparsers) or f"; {_accepted(list(subparsers))}"
    return f"unknown subcommand `{word}`{hint}"


def _option_problems(
    parser: ArgumentParser, option: str, action: argparse.Action, text: str
) -> Iterator[str]:
    """Judge the value of an option that exists."""
    hint = _hint(action)
    if isinstance(action, ConfigFileAction):
        config = read_config(text)
        yield from _KeyWalk(parser, config.label).problems(config.data, config.node)
    elif hint is not None:
        if not _accepts_text(hint, text):
            yield (
                f"`{option}`: got {text!r}, expected {type_name(hint)}"
                f"{did_you_mean(text, _choices(hint))}"
            )
    elif action.dest in (parser.groups or {}) and not Path(text).is_file():
        names = names_beside(f"{action.dest}.", _arguments(parser))
        yield (
            f"`{option}`: got {text!r}, expected a YAML file, or an option such as "
            f"`{option}.{names[0]}`"
        )


def _choices(hint: Any) -> list[str]:
    """Return what a `Literal` accepts, as an option spells it."""
    return (
        [str(choice) for choice in get_args(hint)]
        if get_origin(hint) is Literal
        else []
    )


def _unknown_option(parser: ArgumentParser, option: str) -> Iterator[str]:
    known = _arguments(parser)
    key = option.lstrip("-")
    if any(key.startswith(f"{dest}.") and _hint(known[dest]) for dest in known):
        return  # part of a class given elsewhere, as in --trainer.logger.save_dir
    nearest = nearest_key(key, known)
    if nearest:
        yield f"unknown option `{option}`; did you mean `--{nearest}`?"
    else:
        yield f"unknown option `{option}`; {_accepted(names_beside(key, known))}"


class _KeyWalk:
    """Compare the keys and values of one config with the arguments of a parser."""

    def __init__(self, parser: ArgumentParser, label: str, where: str = "") -> None:
        self.parser = parser
        self.label = label
        self.where = where  # what stands before every key of `parser`, for messages
        self.known = _arguments(parser)
        self.subparsers = _subparsers(parser)

    def problems(
        self, data: Mapping[Any, Any], node: yaml.Node, prefix: str = ""
    ) -> Iterator[str]:
        """Yield a message for each key of `data` that cannot be right, in order."""
        lines, children = _places(node)
        for name, value in data.items():
            key = f"{prefix}{name}".removesuffix("+")
            at = f"{self.label}:{lines.get(str(name), line_of(node))}"
            child = children.get(str(name), node)
            if key in self.subparsers and isinstance(value, Mapping):
                walk = _KeyWalk(self.subparsers[key], self.label, f"{key}.")
                yield from walk.problems(value, child)
            elif any(dest.startswith(f"{key}.") for dest in self.known):
                yield from self._group(key, value, child, at)
            elif key in self.known:
                yield from self._value(key, value, child, at)
            else:
                yield f"{at}: {self._unknown(str(name), prefix)}"

    def _group(
        self, key: str, value: object, node: yaml.Node, at: str
    ) -> Iterator[str]:
        if isinstance(value, Mapping):
            yield from self.problems(value, node, f"{key}.")
        elif not isinstance(value, str):  # a string names a config file of the group
            yield (
                f"{at}: {self.where}{key}: got {_shown(value)}, expected a mapping; "
                f"{_accepted(names_beside(f'{key}.', self.known))}"
            )

    def _unknown(self, name: str, prefix: str) -> str:
        nearest = nearest_key(f"{prefix}{name}", self.known)
        if nearest:
            hint = f"did you mean `{nearest.removeprefix(prefix)}`?"
        else:
            names = names_beside(f"{prefix}{name}", self.known)
            hint = _accepted([*names, *self.subparsers])
        group = f"{self.where}{prefix}".rstrip(".")
        inside = f" in `{group}`" if group else ""
        return f"unknown key `{name}`{inside}; {hint}"

    def _value(
        self, key: str, value: object, node: yaml.Node, at: str
    ) -> Iterator[str]:
        action = self.known[key]
        hint = _hint(action)
        full_key = f"{self.where}{key}"
        if isinstance(value, list) and isinstance(node, yaml.SequenceNode):
            specs = [
                (item, child, f"{full_key}[{index}]")
                for index, (item, child) in enumerate(
                    zip(value, node.value, strict=False)
                )
            ]
        else:
            specs = [(value, node, full_key)]
        for spec, child, place in specs:
            if isinstance(spec, Mapping) and "class_path" in spec:
                yield from self._class(spec, child, place, hint)
        if hint and not _accepts(hint, value):
            yield f"{at}: {full_key}: got {_shown(value)}, expected {type_name(hint)}"

    def _class(
        self, spec: Mapping[str, Any], node: yaml.Node, place: str, hint: Any
    ) -> Iterator[str]:
        """Judge one `class_path` with its `init_args`."""
        lines, children = _places(node)
        at = f"{self.label}:{lines.get('class_path', line_of(node))}"
        try:
            cls = find_class(spec["class_path"], classes_in(hint))
        except ClassPathError as error:
            yield f"{at}: {place}.class_path: {error}"
            return
        for name in spec:
            if name not in ("class_path", "init_args", "dict_kwargs"):
                yield (
                    f"{self.label}:{lines.get(name, line_of(node))}: unknown key "
                    f"`{name}` beside `class_path` in `{place}`; arguments of "
                    f"{cls.__name__} go under `init_args`"
                )
        given = spec.get("init_args") or {}
        class_parser = ArgumentParser(exit_on_error=False)
        class_parser.add_class_arguments(cls, fail_untyped=False)
        walk = _KeyWalk(class_parser, self.label, f"{place}.init_args.")
        yield from walk.problems(given, children.get("init_args", node))
        missing = missing_keys(cls, given)
        if missing:
            yield (
                f"{at}: {place}: {cls.__name__} needs {', '.join(missing)} "
                "under `init_args`"
            )


def _places(node: yaml.Node) -> tuple[dict[str, int], dict[str, yaml.Node]]:
    """Return the line of each key of a mapping and the node of its value."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    lines = {str(key.value): line_of(key) for key, _ in pairs}
    return lines, {str(key.value): child for key, child in pairs}


def _subparsers(parser: ArgumentParser) -> dict[str, ArgumentParser]:
    action = parser._subcommands_action
    return dict(action.choices) if action is not None else {}


def _arguments(parser: ArgumentParser) -> dict[str, argparse.Action]:
    """Return the arguments that a config may set, by their key."""
    return {
        action.dest: action
        for action in parser._actions
        if action.dest != argparse.SUPPRESS
        and not action.dest.endswith(".help")
        and (_hint(action) is not None or action.dest == "config")
    }


def _hint(action: argparse.Action) -> Any:
    """Return the type an argument accepts, or None where it has none to check."""
    return getattr(action, "_typehint", None)


def _accepts(hint: Any, value: object) -> bool:
    """Ask jsonargparse whether a config may say `value` where `hint` is asked for."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=hint)
    try:
        parser.parse_object({"value": value})
    except argparse.ArgumentError:
        return False
    return True


def _accepts_text(hint: Any, text: str) -> bool:
    """Ask jsonargparse whether a command line may say `text` for `hint`."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=hint)
    try:
        parser.parse_args([f"--value={text}"])
    except argparse.ArgumentError:
        return False
    return True


def _accepted(names: list[str]) -> str:
    return f"accepted: {', '.join(names)}"


def _shown(value: object) -> str:
    if value is None:
        return "null"
    text = repr(value)
    if len(text) > _LONGEST_VALUE:
        text = f"{text[:_LONGEST_VALUE]}..."
    return f"{text} ({type(value).__name__})"
