"""What the option parser refuses, in the form of our own errors."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, cast

import typer

from lightgen.errors import UsageError, listing, nearest

PARSER_ERROR = cast(type[Exception], typer.BadParameter.__bases__[0])
"""The parser's own usage error; typer exports no name for it."""


def is_call_for_help(error: Exception) -> bool:
    """Tell whether a command without arguments was given, which prints its help."""
    return type(error).__name__ == "NoArgsIsHelpError"


def as_usage_error(error: Any, typed: Sequence[str]) -> UsageError:
    """Say again what the parser has said.

    Args:
        error: A `PARSER_ERROR`.
        typed: The words behind `lightgen`.
    """
    context = error.ctx
    leading = itertools.takewhile(lambda word: not word.startswith("-"), typed)
    command = context.command_path if context else " ".join(["lightgen", *leading])
    given, where, accepted = error.format_message(), command, ""
    todo = f"see: {command} --help"
    if hasattr(error, "possibilities") and context:  # an option that there is not
        name = error.option_name
        options = [o for p in context.command.params for o in p.opts if o[:2] == "--"]
        near = nearest(name, options)
        given, where = f"unknown option `{name}`", f"option {name} of {command}"
        accepted = ", ".join(options)
        todo = f"did you mean {near}?" if near else todo
    elif type(error) is typer.BadParameter and error.param:
        option = error.param.opts[0]
        pair = f"{option} {_value_of(option, typed)}".rstrip()
        given = f"`{pair}` is not accepted: {error.message}"
        where = f"{error.param.param_type_name} {option}"
        if _is_number(error.param):
            given, accepted = f"`{pair}` is no whole number", "a whole number"
    elif context and hasattr(context.command, "commands"):
        accepted = listing(context.command.commands)
    return UsageError(given, where=where, accepted=accepted, todo=todo)


def _is_number(parameter: Any) -> bool:
    """Tell whether an option takes a whole number, to any version of typer."""
    kind = getattr(getattr(parameter, "type", None), "name", "")
    descriptor = getattr(parameter, "type_descriptor", None)
    return kind == "integer" or getattr(descriptor, "annotation", None) is int


def _value_of(option: str, typed: Sequence[str]) -> str:
    """Return what was typed for an option, the last time."""
    value = ""
    for word, following in itertools.zip_longest(typed, typed[1:], fillvalue=""):
        if word == option:
            value = following
        elif word.startswith(f"{option}="):
            value = word.removeprefix(f"{option}=")
    return value
