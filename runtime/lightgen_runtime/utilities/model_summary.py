"""What a module consists of, as a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn
from torch.nn.parameter import Parameter, is_lazy

from lightgen_runtime.utilities.exceptions import MisconfigurationException


@dataclass(frozen=True)
class LayerSummary:
    """One row: a submodule and the parameters in it.

    Attributes:
        name: Dotted name within the summarised module.
        layer_type: Class name.
        num_parameters: Elements of its parameters, each shared one counted once.
        is_lazy: Whether some parameter gets its shape only at the first batch.
        training: Whether it is in training mode; `None` where that means nothing.
    """

    name: str
    layer_type: str
    num_parameters: int
    is_lazy: bool
    training: bool | None


class ModelSummary:
    """The rows of a module and its totals; `str` of it is the table.

    Args:
        model: The module; it is not changed.
        max_depth: Levels of submodules to list: 0 for none, -1 for all.

    Attributes:
        layers: One row a submodule, down to the depth asked for.
        total_parameters: Elements of all parameters, each shared one counted once.
        trainable_parameters: Those of them that get a gradient.
        model_size: Megabytes (10**6 bytes) that the parameters take.
        has_lazy_parameters: Whether the totals are still too small.

    Raises:
        MisconfigurationException: `max_depth` is below -1.
    """

    def __init__(self, model: nn.Module, max_depth: int = 1) -> None:
        if max_depth < -1:
            raise MisconfigurationException(
                f"`max_depth={max_depth}` is not accepted. Use -1 for all levels, 0 for "
                "none, or how many to list."
            )
        parameters = list(model.parameters())
        known = [parameter for parameter in parameters if not is_lazy(parameter)]
        self.layers = tuple(_layers(model, max_depth))
        self.total_parameters = sum(p.numel() for p in known)
        self.trainable_parameters = sum(p.numel() for p in known if p.requires_grad)
        self.model_size = sum(p.numel() * p.element_size() for p in known) / 1e6
        self.has_lazy_parameters = len(known) < len(parameters)

    def __str__(self) -> str:
        table: list[tuple[str, ...]] = [("", "Name", "Type", "Params", "Mode")]
        for number, layer in enumerate(self.layers):
            count = "?" if layer.is_lazy else readable_count(layer.num_parameters)
            mode = {True: "train", False: "eval", None: ""}[layer.training]
            table.append((str(number), layer.name, layer.layer_type, count, mode))
        frozen = self.total_parameters - self.trainable_parameters
        at_least = "at least " if self.has_lazy_parameters else ""
        return "\n".join(
            [
                *_aligned(table),
                f"{at_least}{self.total_parameters:,} parameters: "
                f"{self.trainable_parameters:,} trainable, {frozen:,} non-trainable; "
                f"estimated size {self.model_size:.3f} MB",
            ]
        )


def summarize(lightning_module: nn.Module, max_depth: int = 1) -> ModelSummary:
    """Return the `ModelSummary` of a module."""
    return ModelSummary(lightning_module, max_depth)


def readable_count(number: int) -> str:
    """Write a count to three digits with a unit: 950, 1.2 K, 62.6 M, 1.5 B."""
    for size, unit in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K")):
        if number >= size:
            value = number / size
            return f"{value:.1f} {unit}" if value < 100 else f"{value:.0f} {unit}"
    return str(number)


def _layers(module: nn.Module, max_depth: int) -> Iterator[LayerSummary]:
    """Yield the rows: submodules, then the parameters that belong to none of them."""
    if max_depth == 0:
        return
    for name, layer in module.named_modules():
        if name and (max_depth == -1 or name.count(".") < max_depth):
            yield _row(name, type(layer).__name__, layer.parameters(), layer.training)
    own = list(module.parameters(recurse=False))
    if own:
        yield _row("other params", "n/a", iter(own), None)


def _row(
    name: str, layer_type: str, parameters: Iterator[Parameter], training: bool | None
) -> LayerSummary:
    held = list(parameters)
    lazy = any(is_lazy(parameter) for parameter in held)
    count = sum(p.numel() for p in held if not is_lazy(p))
    return LayerSummary(name, layer_type, count, lazy, training)


def _aligned(table: list[tuple[str, ...]]) -> Iterator[str]:
    """Yield the lines of `table`, numbers to the right, a rule below and above."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    rule = "-" * (sum(widths) + 3 * (len(widths) - 1))
    for number, (index, name, kind, count, mode) in enumerate(table):
        cells = (
            index.rjust(widths[0]),
            name.ljust(widths[1]),
            kind.ljust(widths[2]),
            count.rjust(widths[3]),
            mode.ljust(widths[4]),
        )
        yield " | ".join(cells).rstrip()
        if number == 0:
            yield rule
    yield rule
