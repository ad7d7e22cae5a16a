"""Checks the answers given on the command line before a template sees them.

copier ignores unknown keys and names no key when a value cannot be converted, so both
are checked here; what needs the template's own logic is left to copier.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lightgen.errors import InvalidAnswerError, UnknownOptionError, listing, nearest
from lightgen.rendering.template import Question, TemplateConfig

_BOOLEANS = frozenset(
    "y yes t true on 1 n no f false off 0".split()  # noqa: SIM905 - reads as the words
)
_NUMBERS: Mapping[str, Callable[[str], Any]] = {"int": int, "float": float}


def parse_data(pairs: Iterable[str]) -> dict[str, str]:
    """Split `key=value` texts; the last value of a key wins.

    Raises:
        InvalidAnswerError: If a text has no `=` or nothing before it.
    """
    data = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not key.strip() or not separator:
            raise InvalidAnswerError(
                f"{pair!r} is no answer",
                where="option --data",
                accepted="KEY=VALUE",
                todo="for example: --data batch_size=32",
            )
        data[key.strip()] = value
    return data


def check_answers(
    config: TemplateConfig, data: Mapping[str, str], *, template: str
) -> None:
    """Check every answer that needs no logic of the template's.

    Args:
        config: The template's questions.
        data: Answer by key, as text.
        template: How the user referred to the template.

    Raises:
        UnknownOptionError: If a key is no question of the template.
        InvalidAnswerError: If a value has the wrong type or is no choice.
    """
    for key, text in data.items():
        question = config.askable.get(key)
        if question is None:
            raise _unknown(key, text, config, template)
        _check_type(question, text)
        _check_choice(question, text)


def _unknown(
    key: str, text: str, config: TemplateConfig, template: str
) -> UnknownOptionError:
    names = sorted(config.askable)
    close = nearest(key, names)
    todo = f"--data {close}={text}" if close else f"lightgen templates show {template}"
    if key == "package":
        todo = "the package is NAME: lightgen new NAME"
    return UnknownOptionError(
        f"the template `{template}` has no option `{key}`",
        where=f"option --data {key}={text}",
        accepted=listing(names),
        todo=todo,
    )


def _check_type(question: Question, text: str) -> None:
    if question.multiselect:
        return
    if question.type_name == "bool" and text.strip().lower() not in _BOOLEANS:
        raise _wrong(question, text, "true or false")
    convert = _NUMBERS.get(question.type_name)
    if convert is not None:
        try:
            convert(text)
        except ValueError as error:
            kind = "a whole number" if question.type_name == "int" else "a number"
            raise _wrong(question, text, kind) from error


def _check_choice(question: Question, text: str) -> None:
    if question.multiselect or not question.choices:
        return
    convert = _NUMBERS.get(question.type_name, str)
    names = [str(choice) for choice in question.choices]
    computed = any("{" in name for name in names)
    if not computed and convert(text) not in map(convert, names):
        raise _wrong(question, text, listing(names), nearest(text, names))


def _wrong(
    question: Question, text: str, accepted: str, close: str | None = None
) -> InvalidAnswerError:
    example = question.default if close is None else close
    return InvalidAnswerError(
        f"{text!r} is no answer to `{question.name}`",
        where=f"option --data {question.name}={text}",
        accepted=accepted,
        todo=f"for example: --data {question.name}={example}",
    )
