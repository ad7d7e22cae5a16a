"""`lightgen optimizers`: the catalogue of optimizers, schedulers and recipes."""

from __future__ import annotations

import shlex
from typing import Annotated, Any, cast

import typer

from lightgen import console
from lightgen.errors import UnknownOptimizerError, did_you_mean, listing
from lightgen.optim.arguments import REQUIRED, Argument
from lightgen.optim.catalogue import OPTIMIZERS, SCHEDULERS, TORCH, find_entry
from lightgen.optim.entries import Entry, Optimizer, Scheduler
from lightgen.optim.options import as_options
from lightgen.optim.recipes import RECIPES
from lightgen.optim.spec import from_record
from lightgen.optim.values import Value, write_value

Name = Annotated[
    str | None, typer.Argument(help="An optimizer, a scheduler or a recipe.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def optimizers(name: Name = None, as_json: AsJson = False) -> None:
    """List what `regen optimizer` can write, or describe one of it."""
    if name is not None:
        _show_one(name, as_json)
        return
    if as_json:
        console.put_json(
            {
                "command": "optimizers",
                "torch": TORCH,
                "optimizers": [_described(e) for e in OPTIMIZERS.values()],
                "schedulers": [_described(e) for e in SCHEDULERS.values()],
                "recipes": [
                    {"name": key, "title": recipe.title, "spec": dict(recipe.record)}
                    for key, recipe in RECIPES.items()
                ],
            }
        )
        return
    _list("Optimizers (--optimizer)", {e.name: e.title for e in OPTIMIZERS.values()})
    _list("Schedulers (--schedule)", {e.name: e.title for e in SCHEDULERS.values()})
    _list("Recipes (--recipe)", {key: r.title for key, r in RECIPES.items()})
    console.put("lightgen optimizers NAME describes one; the data is torch " + TORCH)


def _list(title: str, rows: dict[str, str]) -> None:
    console.put(f"{title}:")
    width = max(map(len, rows))
    for name, text in rows.items():
        console.put(f"  {name:<{width}}  {text}")
    console.put("")


def _show_one(name: str, as_json: bool) -> None:
    lowered = name.lower()
    entry = find_entry(name)
    if entry is not None:
        if as_json:
            console.put_json({"command": "optimizers", **_described(entry)})
        else:
            _show_entry(entry)
    elif lowered in RECIPES:
        _show_recipe(lowered, as_json)
    else:
        known = list(dict.fromkeys([*OPTIMIZERS, *SCHEDULERS, *RECIPES]))
        raise UnknownOptimizerError(
            f"there is no optimizer, scheduler or recipe `{name}`",
            where="argument NAME",
            accepted=listing(known),
            todo=did_you_mean(name, known, "see: lightgen optimizers"),
        )


def _show_entry(entry: Entry) -> None:
    console.put(f"{entry.name}: {entry.title}")
    console.put(f"  {entry.path}, since torch {entry.since}")
    console.put(f"  {entry.source}\n\nArguments:")
    preset = dict(entry.preset) if isinstance(entry, Scheduler) else {}
    for argument in entry.arguments:
        default = cast("Value", preset.get(argument.name, argument.default))
        shown = f"default {write_value(default)}"
        if default == REQUIRED:
            shown = "required"
        if isinstance(entry, Scheduler) and argument.name == entry.span:
            shown = "default: the length of the stage"
        console.put(f"  {argument.name}: {argument.accepted}; {shown}")
    if isinstance(entry, Scheduler):
        unit = "optimizer step" if entry.interval == "step" else "epoch"
        console.put(f"\nSteps once an {unit} unless interval= says otherwise.")


def _show_recipe(name: str, as_json: bool) -> None:
    recipe = RECIPES[name]
    if as_json:
        spec = dict(recipe.record)
        console.put_json(
            {"command": "optimizers", "name": name, "title": recipe.title, "spec": spec}
        )
        return
    console.put(f"{name}: {recipe.title}\n")
    words = as_options(from_record(recipe.record))
    for option, value in zip(words[::2], words[1::2], strict=True):
        console.put(f"  {option} {shlex.quote(value)}")


def _described(entry: Entry) -> dict[str, Any]:
    described = {
        "name": entry.name,
        "class": entry.path,
        "title": entry.title,
        "since": entry.since,
        "source": entry.source,
        "arguments": [_argument(argument) for argument in entry.arguments],
    }
    if isinstance(entry, Optimizer):
        return {"kind": "optimizer", **described}
    assert isinstance(entry, Scheduler)
    kind = {"kind": "scheduler", "interval": entry.interval, "preset": entry.preset}
    return kind | described


def _argument(argument: Argument) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": argument.name,
        "kind": argument.kind,
        "accepted": argument.accepted,
        "required": argument.default == REQUIRED,
    }
    if argument.default != REQUIRED:
        described["default"] = argument.default
    if argument.choices:
        described["choices"] = argument.choices
    return described
