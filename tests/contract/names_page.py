"""Writing the inventory of public names as a page for readers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from public_names import Name

from lightgen_runtime.compat.behaviour import behaviours_of
from lightgen_runtime.compat.differences import GAPS
from lightgen_runtime.compat.rules import rule_for

INTRODUCTION = """\
# Every public name of Lightning 2.6.6

This page is generated: `make golden` writes it, and a test compares it with both packages.
[Compatibility](../compat.md) says what is different on purpose, and shows it in tests.

A name of `lightning.pytorch.X` is found in `lightgen_runtime.pytorch.X`. *Same* means that it
is there, and that a function, method or class takes all the arguments it takes in Lightning,
in that order and with those defaults; more are no difference. An argument is listed only
where it is different or absent. A name that begins with a dot or a bracket goes on from the
name before it: `Trainer.fit`, `.fit(model)`, `.test` are three names of `Trainer`. `f(...)`
stands for all arguments of `f`.

Counted are the names that modules define or re-export, the members of the classes that
Lightning documents, and the arguments of all of them. What begins with an underscore is
private, and so is a module that has no other names.

`python -m lightgen_runtime.compat check PATH` lists what your code uses of all this.

"""
STATUSES = ("same", "different", "absent")


def page(names: Sequence[Name]) -> str:
    """Return the whole page."""
    return INTRODUCTION + counts(names) + "".join(_groups(names))


def counts(names: Iterable[Name]) -> str:
    """Return the table of how many names are same, different and absent."""
    found = Counter((_kind(name), status_of(name)) for name in names)
    lines = ["| | same | different | absent |", "|---|--:|--:|--:|"]
    kinds = ("names in modules", "members of classes", "arguments")
    for kind in kinds:
        cells = [str(found[kind, status]) for status in STATUSES]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    total = [str(sum(found[kind, status] for kind in kinds)) for status in STATUSES]
    lines.append(f"| **together** | {' | '.join(total)} |")
    return "\n".join(lines) + "\n"


def status_of(name: Name) -> str:
    """Return "same" only if no rule says that the name behaves differently."""
    behaves = name.status == "same" and behaviours_of(name.key)
    return "different" if behaves else name.status


def _kind(name: Name) -> str:
    if "(" in name.key:
        return "arguments"
    is_class = name.section.rpartition(".")[2][:1].isupper()
    return "members of classes" if is_class else "names in modules"


def _groups(names: Iterable[Name]) -> Iterator[str]:
    groups: dict[str, list[Name]] = {}
    for name in names:
        top = name.section.partition(".")[0]
        groups.setdefault("" if top[:1].isupper() else top, []).append(name)
    for group, members in groups.items():
        title = group if group == "lightning" else f"lightning.pytorch.{group}"
        parts = [_same(members), _not_same(members)]
        yield "\n".join([f"\n## {title.rstrip('.')}\n", *filter(None, parts)])


def _same(names: Iterable[Name]) -> str:
    sections: dict[str, list[str]] = {}
    for name in names:
        if "(" not in name.key and status_of(name) == "same":
            own = name.key.removeprefix(f"{name.section}.")
            sections.setdefault(name.section, []).append(f"`{own}`")
    return "".join(
        f"- `{section or 'lightning.pytorch'}`: {', '.join(same)}\n"
        for section, same in sections.items()
    )


def _not_same(names: Sequence[Name]) -> str:
    arguments = _arguments(names)
    rows: dict[tuple[str, str], list[Name]] = {}
    for name in names:
        if status_of(name) != "same":
            rows.setdefault(_explained(name), []).append(name)
    lines = [
        f"| {', '.join(_abbreviated(row, arguments))} | {here} | {why} |\n"
        for (here, why), row in rows.items()
    ]
    head = "| not the same | here | why, and what to do |\n|---|---|---|\n"
    return head + "".join(lines) if lines else ""


def _explained(name: Name) -> tuple[str, str]:
    if name.status == "same":
        return status_of(name), "<br>".join(r.text for r in behaviours_of(name.key))
    rule = rule_for(name.key, GAPS)
    assert rule is not None, f"nothing says why `{name.key}` is {name.status}"
    here = f"{name.status}: {name.finding}" if name.finding else name.status
    return here, rule.text


def _arguments(names: Iterable[Name]) -> Counter[str]:
    return Counter(name.key.partition("(")[0] for name in names if "(" in name.key)


def _abbreviated(row: Sequence[Name], arguments: Counter[str]) -> Iterator[str]:
    """Yield the names of a row, each class or module written out only where it begins.

    Args:
        row: The names.
        arguments: How many each function has.
    """
    here = _arguments(row)
    whole = {function for function in here if here[function] == arguments[function] > 1}
    before = ""
    for section, keys in groupby(row, key=lambda name: name.section):
        for key in dict.fromkeys(_whole(name.key, whole) for name in keys):
            own = key.removeprefix(section)
            goes_on = section == before and own[:1] in (".", "(")
            yield f"`{own if goes_on else key}`"
            before = section


def _whole(key: str, functions: set[str]) -> str:
    function = key.partition("(")[0]
    return f"{function}(...)" if "(" in key and function in functions else key
