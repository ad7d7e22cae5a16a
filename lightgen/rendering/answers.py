"""Checks the answers given on the command line before a template sees them.

copier ignores unknown keys and names no key when a value cannot be converted, so both
are checked here; what needs the template's own logic is left to copier.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lightgen.errors import InvalidAnswerError, UnknownOptionError, listing, nearest
from lightgen.rendering.bundled import bundled_names
from lightgen.rendering.template import Question, TemplateConfig

_BOOLEANS = {
    **dict.fromkeys(("y", "yes", "t", "true", "on", "1"), True),
    **dict.fromkeys(("n", "no", "f", "false", "off", "0"), False),
}


def _boolean(text: str) -> bool:
    try:
        return _BOOLEANS[text.strip().lower()]
    except KeyError as error:
        raise ValueError(f"{text!r} is neither true nor false") from error


_CONVERTERS: Mapping[str, tuple[Callable[[str], Any], str]] = {
    "bool": (_boolean, "true or false"),
    "int": (int, "a whole number"),
    "float": (float, "a number"),
}


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
        if not question.multiselect:
            _check_value(question, text)


def _unknown(
    key: str, text: str, config: TemplateConfig, template: str
) -> UnknownOptionError:
    names = sorted(config.askable)
    close = nearest(key, names)
    todo = "see the questions in its copier.yml"
    if key == "package":
        todo = "the package is NAME: lightgen new NAME"
    elif close:
        todo = f"--data {close}={text}"
    elif template in bundled_names():
        todo = f"lightgen templates show {template}"
    return UnknownOptionError(
        f"the template `{template}` has no option `{key}`",
        where=f"option --data {key}={text}",
        accepted=listing(names),
        todo=todo,
    )


def _check_value(question: Question, text: str) -> None:
    convert, kind = _CONVERTERS.get(question.type_name, (str, ""))
    try:
        value = convert(text)
    except ValueError as error:
        raise _wrong(question, text, kind) from error
    names = [str(choice) for choice in question.choices]
    computed = any("{" in name for name in names)
    if names and not computed and value not in map(convert, names):
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
