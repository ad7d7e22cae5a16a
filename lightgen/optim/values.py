"""What an argument may be set to: read from an option, and written as Python."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from lightgen.optim.arguments import Argument
from lightgen.optim.text import Piece

HPARAMS = "hparams."
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(%|st|ep)?")
_DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
_FLAGS = dict.fromkeys(("true", "yes", "on"), True)
_FLAGS |= dict.fromkeys(("false", "no", "off"), False)


@dataclass(frozen=True)
class Hparam:
    """A value that stays in the configuration: `self.hparams.<name>`."""

    name: str


@dataclass(frozen=True)
class Function:
    """A function, by the name that the module's file sees it under."""

    name: str


@dataclass(frozen=True)
class Duration:
    """A length of training.

    Attributes:
        amount: How much of the unit.
        unit: "%" of the whole run, "st" for optimizer steps, "ep" for epochs, or ""
            for steps of the scheduler itself.
    """

    amount: float
    unit: Literal["%", "st", "ep", ""] = ""


Value = (
    int
    | float
    | bool
    | str
    | None
    | Hparam
    | Function
    | Duration
    | tuple["int | float | Hparam | None", ...]
    | tuple[Duration, ...]
)


def read_value(argument: Argument, piece: Piece) -> Value:
    """Read one value.

    Args:
        argument: What is to be set.
        piece: What the user wrote.

    Raises:
        OptimizerOptionError: It is of another kind, or out of range.
    """
    text = piece.text
    if argument.none and text.lower() == "none":
        return None
    if text.startswith(HPARAMS):
        name = text.removeprefix(HPARAMS)
        if argument.kind not in ("function", "durations") and name.isidentifier():
            return Hparam(name)
    try:
        return _READERS[argument.kind](argument, text)
    except ValueError as error:
        raise piece.error(
            f"`{argument.name}` cannot be {text!r}",
            accepted=f"{argument.accepted}; or hparams.NAME for a value of the config",
        ) from error


def write_value(value: Value) -> str:
    """Write a value as a user would."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Hparam):
        return HPARAMS + value.name
    if isinstance(value, Function):
        return value.name
    if isinstance(value, Duration):
        return f"{number_text(value.amount)}{value.unit}"
    if isinstance(value, tuple):
        return ":".join(write_value(part) for part in value)
    return value if isinstance(value, str) else number_text(value)


def python_value(value: Value) -> str:
    """Write a value as a Python expression; durations are the emitter's business."""
    if isinstance(value, Hparam):
        return f"self.hparams.{value.name}"
    if isinstance(value, Function):
        return value.name
    if isinstance(value, tuple):
        return f"({', '.join(python_value(part) for part in value)})"
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return number_text(value)
    return repr(value)


def number_text(value: float) -> str:
    """Write a number in the shortest form that reads back the same: `1e-6`, not `1e-06`."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e6:
        return f"{value:.1f}" if value else "0.0"
    return re.sub(r"e([+-])0*(\d)", lambda m: f"e{m[1].strip('+')}{m[2]}", repr(value))


def read_duration(text: str) -> Duration | None:
    """Read a duration such as `5%`, `500st`, `3ep` or `10`; None if it is none."""
    match = _DURATION.fullmatch(text)
    if match is None:
        return None
    amount = float(match[1])
    unit = match[2] or ""
    if unit == "%" and amount > 100:
        return None
    if unit != "%" and not amount.is_integer():
        return None
    whole = int(amount) if amount.is_integer() else amount
    return Duration(whole, unit)  # type: ignore[arg-type]


def read_number(
    text: str,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> int | float:
    """Read a number within limits.

    Raises:
        ValueError: It is none, or beyond them.
    """
    value = int(text) if re.fullmatch(r"[+-]?\d+", text) else float(text)
    fits = (
        math.isfinite(value)
        and (least is None or value >= least)
        and (most is None or value <= most)
        and (above is None or value > above)
        and (below is None or value < below)
    )
    if not fits:
        raise ValueError(f"{text} is out of range")
    return value


def read_factor(piece: Piece, most: float | None = None) -> float:
    """Read a factor of the learning rate: above 0, and at most `most`.

    Raises:
        OptimizerOptionError: It is none.
    """
    try:
        return float(read_number(piece.text, above=0, most=most))
    except ValueError as error:
        limit = "" if most is None else f", at most {most:g}"
        raise piece.error(
            f"`{piece.text}` is no factor", accepted=f"a number above 0{limit}"
        ) from error


def _read_number(argument: Argument, text: str) -> int | float:
    return read_number(
        text,
        least=argument.least,
        most=argument.most,
        above=argument.above,
        below=argument.below,
    )


def _read_integer(argument: Argument, text: str) -> int:
    value = _read_number(argument, text)
    if not isinstance(value, int):
        raise ValueError(f"{text} is no whole number")
    return value


def _read_flag(argument: Argument, text: str) -> bool:
    if text.lower() not in _FLAGS:
        raise ValueError(f"{text} is neither true nor false")
    return _FLAGS[text.lower()]


def _read_choice(argument: Argument, text: str) -> str:
    if text not in argument.choices:
        raise ValueError(f"{text} is no choice")
    return text


def _read_numbers(
    argument: Argument, text: str
) -> tuple[int | float | Hparam | None, ...]:
    parts = [part.strip() for part in re.split(r"[:,]", text.strip("()[] "))]
    if len(parts) != argument.count:
        raise ValueError(f"{text} is not {argument.count} numbers")
    return tuple(_read_part(argument, part) for part in parts)


def _read_part(argument: Argument, text: str) -> int | float | Hparam | None:
    name = text.removeprefix(HPARAMS)
    if name != text and name.isidentifier():
        return Hparam(name)
    if argument.none and text.lower() == "none":
        return None
    return _read_number(argument, text)


def _read_duration(argument: Argument, text: str) -> Duration:
    found = read_duration(text)
    if found is None or not found.amount:
        raise ValueError(f"{text} is no duration")
    return found


def _read_durations(argument: Argument, text: str) -> tuple[Duration, ...]:
    return tuple(_read_duration(argument, p.strip()) for p in re.split("[:,]", text))


def _read_function(argument: Argument, text: str) -> Function:
    if not _DOTTED.fullmatch(text):
        raise ValueError(f"{text} is no name of a function")
    return Function(text)


_READERS: dict[str, Callable[[Argument, str], Value]] = {
    "number": _read_number,
    "integer": _read_integer,
    "flag": _read_flag,
    "choice": _read_choice,
    "numbers": _read_numbers,
    "duration": _read_duration,
    "durations": _read_durations,
    "function": _read_function,
}
