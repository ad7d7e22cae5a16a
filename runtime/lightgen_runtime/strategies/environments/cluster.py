"""What whoever started this process tells of it: who it is, and where the first one is."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import ClassVar

from lightgen_runtime.utilities.exceptions import MisconfigurationException


class ClusterEnvironment(ABC):
    """Numbers of a process and the address of the first, as a launcher gives them.

    For a cluster of your own, define all of these in a subclass and pass an object of it:
    `Trainer(plugins=[MyEnvironment()])`.

    Attributes:
        launcher: What starts the processes, for messages.
        variables: Environment variables that messages quote.
        start_line: How to start so many processes, with `{nodes}` and `{devices}`.
    """

    launcher: ClassVar[str] = "whatever has started them"
    variables: ClassVar[tuple[str, ...]] = ()
    start_line: ClassVar[str] = "{devices} process(es) on each of {nodes} node(s)"

    @property
    @abstractmethod
    def creates_processes_externally(self) -> bool:
        """Whether all processes are there; else this one starts those of its node."""

    @property
    @abstractmethod
    def main_address(self) -> str:
        """Host name or address of the first process's node."""

    @property
    @abstractmethod
    def main_port(self) -> int:
        """The port there at which all processes meet."""

    @staticmethod
    @abstractmethod
    def detect() -> bool:
        """Tell whether this process has been started in that way."""

    @abstractmethod
    def world_size(self) -> int:
        """Return the number of processes on all nodes."""

    @abstractmethod
    def set_world_size(self, size: int) -> None:
        """Take the trainer's number of processes; nothing where it is known."""

    @abstractmethod
    def global_rank(self) -> int:
        """Return this process's number among all, from 0."""

    @abstractmethod
    def set_global_rank(self, rank: int) -> None:
        """Take this process's number among all; nothing where it is known."""

    @abstractmethod
    def local_rank(self) -> int:
        """Return this process's number on its node, from 0."""

    @abstractmethod
    def node_rank(self) -> int:
        """Return this node's number, from 0."""

    def local_world_size(self) -> int | None:
        """Return the number of processes on this node; None where that is not known."""
        return None

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        """Refuse numbers of the trainer's that are not those of the launcher.

        Args:
            num_devices: Devices of each node, one a process.
            num_nodes: Nodes.

        Raises:
            MisconfigurationException: As many processes have not been started.
        """
        if not self.creates_processes_externally:
            return
        world, here = self.world_size(), self.local_world_size()
        if world == num_devices * num_nodes and here in (None, num_devices):
            return
        fixes = [self.start_line.format(nodes=num_nodes, devices=num_devices)]
        if here is not None and world % here == 0:
            fixes.insert(0, f"`Trainer(devices={here}, num_nodes={world // here})`")
        raise MisconfigurationException(
            f"`Trainer(devices=..., num_nodes={num_nodes})` makes {num_devices} x "
            f"{num_nodes} = {num_devices * num_nodes} process(es), and {world} have been "
            f"started{'' if here is None else f' ({here} a node)'} by {self.launcher}"
            f"{self.quoted()}. Use {', or '.join(fixes)}. For programs that have nothing "
            "to do with each other, use `Trainer(strategy='single_device', devices=1)`."
        )

    def teardown(self) -> None:
        """Clean up at a run's end; nothing by default."""

    def quoted(self) -> str:
        """Return the variables that are set, with their values, for a message."""
        found = [f"{v}={os.environ[v]}" for v in self.variables if v in os.environ]
        return f" ({', '.join(found)})" if found else ""


class StartedByLauncher(ClusterEnvironment):
    """All processes are there, and their numbers are fixed."""

    @property
    def creates_processes_externally(self) -> bool:
        """Return True."""
        return True

    def set_world_size(self, size: int) -> None:
        """Do nothing: the launcher knows."""

    def set_global_rank(self, rank: int) -> None:
        """Do nothing: the launcher knows."""


def number(*names: str) -> int | None:
    """Return the number that an environment variable holds; None if none holds one.

    Args:
        names: Of the variables, the first of which goes before the others.
    """
    values = (os.environ.get(name, "") for name in names)
    return next((int(value) for value in values if value.isdigit()), None)


def required(name: str) -> int:
    """Return the number that an environment variable holds.

    Raises:
        MisconfigurationException: It is not set, or to something else.
    """
    value = number(name)
    if value is None:
        raise MisconfigurationException(
            f"the environment variable {name} is {os.environ.get(name)!r}; it must hold a "
            "number. Start the program by its launcher, or leave out the environment in "
            "`Trainer(plugins=...)`."
        )
    return value


def address_or(fallback: str) -> str:
    """Return MASTER_ADDR, which goes before what is derived; else `fallback`."""
    return os.environ.get("MASTER_ADDR") or fallback


def port_or(fallback: int) -> int:
    """Return MASTER_PORT, which goes before what is derived; else `fallback`."""
    return number("MASTER_PORT") or fallback


def port_of_job(job: int, step: int = 0) -> int:
    """Return a port that all processes of a job agree on, and others hardly share.

    Source: 15000 to 24999, as Lightning; below the ports that systems hand out. Jobs on
    one host have numbers that lie near each other, so their last four digits differ.
    """
    return 15000 + (job + 1009 * step) % 10000
