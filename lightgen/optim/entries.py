"""One optimizer or scheduler of torch, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lightgen.optim.arguments import Argument

Interval = Literal["step", "epoch"]


@dataclass(frozen=True)
class Entry:
    """An optimizer or a scheduler.

    Attributes:
        name: What users write, in lower case.
        class_name: What torch calls it.
        title: What it is, in a few words.
        arguments: Its arguments in the order in which they are written, without
            `params`, `optimizer` and `last_epoch`.
        since: First release of torch that has it.
    """

    name: str
    class_name: str
    title: str
    arguments: tuple[Argument, ...]
    since: str = "1.0"

    home = "torch"

    def argument(self, name: str) -> Argument | None:
        """Return one argument by name."""
        return next((found for found in self.arguments if found.name == name), None)

    def has(self, name: str) -> bool:
        """Tell whether there is an argument of that name."""
        return self.argument(name) is not None

    @property
    def path(self) -> str:
        """The name that code reaches it by."""
        return f"{self.home}.{self.class_name}"

    @property
    def source(self) -> str:
        """Where torch documents it."""
        return f"https://docs.pytorch.org/docs/stable/generated/{self.path}.html"


@dataclass(frozen=True)
class Optimizer(Entry):
    """An optimizer of `torch.optim`.

    Attributes:
        groups: Whether it takes parameter groups.
        closure: Whether a step evaluates the loss again.
        dims: The only number of dimensions a parameter may have; 0 for any.
    """

    groups: bool = True
    closure: bool = False
    dims: int = 0

    home = "torch.optim"

    @property
    def has_momentum(self) -> bool:
        """Whether a scheduler that cycles the momentum finds one."""
        return self.has("momentum") or self.has("betas")


@dataclass(frozen=True)
class Scheduler(Entry):
    """A scheduler of `torch.optim.lr_scheduler`.

    Attributes:
        interval: Whether one step of it is usually an optimizer step or an epoch.
        span: The argument that says how long it runs; "" if it has none.
        preset: Arguments that the name stands for, beside torch's defaults.
        composes: Whether it may be part of a sequence or a product.
        aliases: Other names that users write.
    """

    interval: Interval = "epoch"
    span: str = ""
    preset: tuple[tuple[str, float], ...] = ()
    composes: bool = True
    aliases: tuple[str, ...] = ()

    home = "torch.optim.lr_scheduler"
