"""What the job files have in common: options that are remembered, and the program."""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, TypeVar

from lightgen.cluster import values

J = TypeVar("J", bound="Job")
CLEARED = "none"
"""What one says to have an option's default again."""


@dataclass(frozen=True)
class Job(ABC):
    """A job file's options; a subclass has those of one scheduler, and its text.

    Attributes:
        nodes: Machines.
        devices: Devices of each, one process for each of them.
    """

    nodes: int = 1
    devices: int = 1

    command: ClassVar[str]
    file: ClassVar[str]

    @abstractmethod
    def text(self, package: str) -> str:
        """Return the job file of a project.

        Args:
            package: The project's import package.
        """

    @abstractmethod
    def start(self, package: str) -> list[str]:
        """Return what starts the job, a line for each command."""

    def check(self) -> None:
        """Refuse options that cannot work.

        Raises:
            JobOptionError: One of them.
        """
        values.check_number("option --nodes", self.nodes, 1, "machines")
        values.check_number(
            "option --devices", self.devices, 1, "devices of each machine"
        )

    def record(self) -> dict[str, Any]:
        """Return the options as plain JSON."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {n: list(v) if isinstance(v, tuple) else v for n, v in found.items()}


def with_options(job: J, given: Mapping[str, Any]) -> J:
    """Return a job with other options; what is not given stays, `none` takes back.

    Raises:
        JobOptionError: An option cannot work.
    """
    defaults: dict[str, Any] = {field.name: field.default for field in fields(job)}
    taken = {
        name: defaults[name] if value in (CLEARED, [CLEARED]) else _value(value)
        for name, value in given.items()
        if value is not None
    }
    changed = replace(job, **taken)
    changed.check()
    return changed


def from_record(kind: type[J], record: Mapping[str, Any]) -> J:
    """Return what `record` gave.

    Raises:
        TypeError: It has an option that `kind` lacks, or of another type.
        JobOptionError: An option cannot work.
    """
    default = kind()
    for name, value in record.items():
        now = _value(getattr(default, name, None))
        if now is None or type(now) is not type(_value(value)):
            raise TypeError(f"`{name}` cannot be {value!r}")
    return with_options(default, record)


def program(package: str, *arguments: str) -> str:
    """Spell the part of a command that is the project's program, without its launcher.

    It needs no lightgen command, which a cluster may not have.
    """
    return shlex.join(["-m", package, "fit", "--config", "config.yaml", *arguments])


def _value(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
