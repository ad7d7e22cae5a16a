"""Pairs of a generator's change and a user's edit, drawn from a seed.

An edit is a function of a file's text, which returns the edited text, or None where the
text has nothing to edit. It stands for what people do to a generated block.
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from blocks import source_of, spec_of

from lightgen.optim.spec import GroupSpec, OptimSpec

Edit = Callable[[str], "str | None"]


@dataclass(frozen=True)
class Pair:
    """One case: the block was `before`, becomes `after`, and the user did `edits`."""

    before: OptimSpec
    after: OptimSpec
    edits: tuple[str, ...]


OPTIMIZERS = [
    "adamw:lr=hparams.lr",
    "adamw:lr=hparams.lr,weight_decay=0.05",
    "adamw:lr=0.001,betas=0.9:0.95,weight_decay=0.1",
    "adam:lr=hparams.lr",
    "adam:lr=0.002,betas=0.5:0.999",
    "sgd:lr=hparams.lr,momentum=0.9",
    "sgd:lr=0.05,momentum=0.9,weight_decay=0.001,nesterov=true",
    "rmsprop:lr=0.01,momentum=0.5",
]
SCHEDULES = [
    "none",
    "cosine",
    "cosine:eta_min=1e-5",
    "warmup:10% > cosine",
    "warmup:5% > cosine:eta_min=1e-6",
    "warmup:4st > hold:50% > decay",
    "onecycle:pct_start=0.2",
    "step:step_size=2ep,gamma=0.5",
    "exponential:gamma=0.9",
    "plateau:monitor=val_loss,patience=2",
    "warmup:4st & plateau:monitor=val_loss",
    "multistep:milestones=2ep:5ep",
]
GROUPS = [
    GroupSpec(),
    GroupSpec(no_decay=("bias", "norm")),
    GroupSpec(no_decay=("bias", "norm", "embedding")),
    GroupSpec(lr_scale=(("head", 10.0),)),
]
FREEZES: list[tuple[str, ...]] = [(), (), ("embedding",)]


def pairs(seed: int, count: int) -> Iterator[Pair]:
    """Yield cases, the same for the same seed."""
    draw = random.Random(seed)
    names = sorted(EDITS)
    while count:
        options = _options(draw)
        after = _changed(draw, options)
        before_spec, after_spec = _spec(options), _spec(after)
        if before_spec is None or after_spec is None or before_spec == after_spec:
            continue
        drawn = draw.sample(names, draw.choice([1, 1, 1, 2, 3]))
        edits = tuple(sorted(drawn, key=lambda name: name in LAST))
        text = edited(source_of(before_spec), edits)
        if text is None:
            continue
        count -= 1
        yield Pair(before_spec, after_spec, edits)


def edited(text: str, edits: tuple[str, ...]) -> str | None:
    """Apply edits one after the other; None if one finds nothing to edit."""
    for name in edits:
        changed = EDITS[name](text)
        if changed is None or changed == text or not _is_python(changed):
            return None
        text = changed
    return text


def _is_python(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


def _options(draw: random.Random) -> list[object]:
    return [
        draw.choice(OPTIMIZERS),
        draw.choice(SCHEDULES),
        draw.choice(GROUPS),
        draw.choice(FREEZES),
    ]


def _changed(draw: random.Random, options: list[object]) -> list[object]:
    """Change one option, sometimes two."""
    changed = list(options)
    tables: list[list[object]] = [[*OPTIMIZERS], [*SCHEDULES], [*GROUPS], [*FREEZES]]
    for place in draw.sample(range(4), draw.choice([1, 1, 2])):
        changed[place] = draw.choice(tables[place])
    return changed


def _spec(options: list[object]) -> OptimSpec | None:
    optimizer, schedule, groups, freeze = options
    assert isinstance(optimizer, str)
    assert isinstance(schedule, str)
    assert isinstance(groups, GroupSpec)
    assert isinstance(freeze, tuple)
    return spec_of(optimizer, schedule=schedule, groups=groups, freeze=freeze)


# ---- what users do ----


def _line_of(text: str, pattern: str) -> re.Match[str] | None:
    return re.search(pattern, text, re.MULTILINE)


def _before(text: str, pattern: str, line: str) -> str | None:
    """Put a line before the first that matches, at its indentation."""
    found = _line_of(text, pattern)
    if found is None:
        return None
    indent = re.match(r"[ \t]*", found[0])
    assert indent is not None
    return f"{text[: found.start()]}{indent[0]}{line}\n{text[found.start() :]}"


def _starts(text: str) -> list[int]:
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    return starts


def _renamed(text: str, old: str, new: str) -> str:
    starts = _starts(text)
    found = [
        starts[node.lineno - 1] + node.col_offset
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Name) and node.id == old
    ]
    for at in sorted(found, reverse=True):
        text = text[:at] + new + text[at + len(old) :]
    return text


def _statement(text: str, target: str) -> tuple[int, int] | None:
    """Return the characters of the top-level statement that assigns `target`."""
    tree = ast.parse(text)
    starts = _starts(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == target:
            assert node.end_lineno is not None
            return starts[node.lineno - 1], starts[node.end_lineno]
    return None


def comment_above_optimizer(text: str) -> str | None:
    return _before(text, r"^ +optimizer = .*$", "# Tuned by hand; do not touch.")


def comment_on_rate(text: str) -> str | None:
    return re.sub(r"(\n +lr=[^\n]*,)\n", r"\1  # from the paper\n", text, count=1)


def comment_in_scheduler(text: str) -> str | None:
    return re.sub(
        r"(scheduler = torch[^\n]*\(\n)( +)", r"\1\2# slow at first\n\2", text, count=1
    )


def comment_at_the_end(text: str) -> str | None:
    return re.sub(r"\n( +return )", r"\n\n        # What the trainer wants.\n\1", text)


def rename_optimizer(text: str) -> str | None:
    return _renamed(text, "optimizer", "opt")


def rename_scheduler(text: str) -> str | None:
    return _renamed(text, "scheduler", "rate_schedule")


def extra_argument(text: str) -> str | None:
    return re.sub(
        r"(optimizer = torch\.optim\.\w+\(\n(?: {12}.*\n)*?)( {8}\))",
        r"\1            maximize=True,\n\2",
        text,
        count=1,
    )


def adam_argument(text: str) -> str | None:
    """What only optimizers of Adam's family take."""
    return re.sub(
        r"(optimizer = torch\.optim\.AdamW?\(\n(?: {12}.*\n)*?)( {8}\))",
        r"\1            amsgrad=True,\n\2",
        text,
        count=1,
    )


def another_rate(text: str) -> str | None:
    return re.sub(r"(\n {12})lr=[^,\n]*,", r"\1lr=0.5 * self.hparams.lr,", text)


def rate_in_a_variable(text: str) -> str | None:
    found = re.search(r"\n {12}lr=([^,\n]*),", text)
    if found is None:
        return None
    text = text.replace(found[0], "\n            lr=rate,", 1)
    return _before(text, r"^ +(opt|optimizer)(: [\w.]+)? = .*$", f"rate = {found[1]}")


def statement_behind_optimizer(text: str) -> str | None:
    place = _statement(text, "optimizer")
    if place is None:
        return None
    line = "        self.marks.append(len(optimizer.param_groups))\n"
    return text[: place[1]] + line + text[place[1] :]


def keep_optimizer(text: str) -> str | None:
    if "        optimizer" not in text:
        return None
    return _before(text, r"^ {8}return .*$", "self.kept = optimizer")


def early_return(text: str) -> str | None:
    return re.sub(
        r'(\n {8}"""[^\n]*"""\n)',
        r"\1        if self.hparams.lr < 0:\n            return None\n",
        text,
        count=1,
    )


def wrapped_optimizer(text: str) -> str | None:
    place = _statement(text, "optimizer")
    if place is None:
        return None
    statement = text[slice(*place)].rstrip("\n")
    value = statement.partition(" = ")[2].replace("\n", "\n    ")
    wrapped = f"        optimizer = self.wrap(\n            {value},\n        )\n"
    return text[: place[0]] + wrapped + text[place[1] :]


def filtered_parameters(text: str) -> str | None:
    old = "            self.parameters(),\n"
    new = "            [p for p in self.parameters() if p.requires_grad],\n"
    return text.replace(old, new, 1)


def moved_optimizer_up(text: str) -> str | None:
    place = _statement(text, "optimizer")
    first = re.search(r'\n {8}"""[^\n]*"""\n', text)
    if place is None or first is None or place[0] <= first.end():
        return None
    if "parameter_groups" in text[slice(*place)] or "freeze(" in text:
        return None
    statement = text[slice(*place)]
    rest = text[: place[0]] + text[place[1] :]
    return rest[: first.end()] + statement + rest[first.end() :]


def on_one_line(text: str) -> str | None:
    place = _statement(text, "optimizer")
    if place is None:
        return None
    statement = ast.unparse(ast.parse(text[slice(*place)].strip()))
    return f"{text[: place[0]]}        {statement}\n{text[place[1] :]}"


def blank_lines(text: str) -> str | None:
    return re.sub(r"\n( {8}(?:optimizer|scheduler|return)\b)", r"\n\n\1", text)


def own_docstring(text: str) -> str | None:
    return re.sub(r'\n {8}"""[^\n]*"""\n', '\n        """Mine."""\n', text, count=1)


def logged_name(text: str) -> str | None:
    return re.sub(r'(\n +)"interval"', r'\1"name": "rate",\1"interval"', text, count=1)


def other_frequency(text: str) -> str | None:
    return re.sub(
        r'(\n +)("interval": "\w+",)', r'\1\2\1"frequency": 2,', text, count=1
    )


def other_gamma(text: str) -> str | None:
    return re.sub(r"(\n +)gamma=[\d.]+", r"\1gamma=0.75", text, count=1)


def other_floor(text: str) -> str | None:
    return re.sub(r"(\n +)eta_min=[\de.-]+", r"\1eta_min=1e-4", text, count=1)


def returned_by_a_variable(text: str) -> str | None:
    head, mark, value = text.rpartition("        return {")
    if not mark:
        return None
    return f"{head}        config = {{{value.rstrip()}\n        return config\n"


def return_before_scheduler(text: str) -> str | None:
    place = _statement(text, "scheduler")
    if place is None or "        optimizer" not in text[: place[0]]:
        return None
    lines = "        if self.hparams.lr < 0:\n            return optimizer\n"
    return text[: place[0]] + lines + text[place[0] :]


def nested_in_with(text: str) -> str | None:
    place = _statement(text, "scheduler")
    if place is None:
        return None
    statement = text[slice(*place)].rstrip("\n").replace("\n", "\n    ")
    lines = f"        with torch.no_grad():\n    {statement}\n"
    return text[: place[0]] + lines + text[place[1] :]


def annotated_optimizer(text: str) -> str | None:
    return text.replace(
        "        optimizer = ", "        optimizer: torch.optim.Optimizer = ", 1
    )


def own_guard_message(text: str) -> str | None:
    return text.replace(
        '"the learning rate schedule must know the length of the run: "',
        '"how long is the run? "',
    )


def windows_lines(text: str) -> str | None:
    return text.replace("\n", "\r\n")


def tabs(text: str) -> str | None:
    return re.sub(
        r"^( {4})+", lambda m: "\t" * (len(m[0]) // 4), text, flags=re.MULTILINE
    )


def other_code_around(text: str) -> str | None:
    return text.replace(
        "class Module(torch.nn.Module):\n",
        "def caf\u00e9(x):\n    return {'x' : x}   # odd\n\n\n"
        "class Module(torch.nn.Module):\n    size=3\n\n",
    ) + ("\n    def forward(self,x):\n        return  x\n")


EDITS: dict[str, Edit] = {
    name: edit
    for name, edit in sorted(globals().items())
    if callable(edit)
    and getattr(edit, "__module__", "") == __name__
    and not name.startswith("_")
    and name not in ("Pair", "pairs", "edited", "Edit")
}
# These leave nothing for the others to find.
LAST = ("other_code_around", "windows_lines", "tabs")
# These change nothing that a run could show.
NEUTRAL = {
    "annotated_optimizer",
    "blank_lines",
    "comment_above_optimizer",
    "comment_at_the_end",
    "comment_in_scheduler",
    "comment_on_rate",
    "early_return",
    "moved_optimizer_up",
    "nested_in_with",
    "on_one_line",
    "other_code_around",
    "own_docstring",
    "own_guard_message",
    "rename_optimizer",
    "rename_scheduler",
    "returned_by_a_variable",
    "return_before_scheduler",
    "tabs",
    "windows_lines",
}
