"""Starting the project's program in several processes: torchrun, and what it is told.

torch's own launcher starts the processes, ends all when one fails, and starts them again
if it may. Nothing here imports torch.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from lightgen.errors import UsageError, nearest

Devices = Annotated[
    str | None,
    typer.Option(
        metavar="N|auto",
        help="Devices of this machine, one process each; auto takes all accelerators.",
    ),
]
Nodes = Annotated[
    int | None,
    typer.Option(metavar="M", help="Machines: run the same command on each of them."),
]
NodeRank = Annotated[
    int | None,
    typer.Option(
        metavar="R",
        help="Number of this machine, from 0, which is HOST. Default: by their arrival.",
    ),
]
Rendezvous = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="Where the machines meet: one of them, and a free port there.",
    ),
]
Restarts = Annotated[
    int | None,
    typer.Option(
        metavar="K",
        help="Start all processes again, up to K times, when one of them fails; the fit "
        "goes on from its newest checkpoint.",
    ),
]

TORCHRUN = "torch.distributed.run"

# What it passes on to the processes, so that they save before they end. SIGUSR1 is how
# SLURM warns; torchrun itself would die of it and leave them behind.
_SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"
_SET_BY_DEVICES = ("--trainer.devices", "--trainer.num_nodes")
_OWN = ("--devices", "--nodes", "--node-rank", "--rendezvous", "--restarts")
_ENDPOINT = re.compile(r"(?:\[[0-9A-Fa-f:]+\]|[^\s:\[\]]+):(?P<port>\d{1,5})")
_LAST_PORT = 65535
_COUNT = (
    "import sys; from lightgen_runtime.accelerators import choose_devices; "
    "print(len(choose_devices(sys.argv[1])))"
)
_SLIP = 0.85  # so alike are slips, not the program's own `--ckpt_path` and the like


@dataclass(frozen=True)
class Launch:
    """How many processes there are, where, and how often they are started again.

    Attributes:
        devices: Processes on each machine; None leaves that to the configuration.
        nodes: Machines.
        node_rank: Which of them this is; None has torch number them.
        rendezvous: Where they meet, as HOST:PORT.
        restarts: How often all processes may be started again.
    """

    devices: int | None = None
    nodes: int = 1
    node_rank: int | None = None
    rendezvous: str | None = None
    restarts: int = 0

    @property
    def uses_torchrun(self) -> bool:
        """Whether the program is started by torchrun, not by itself."""
        several = (self.devices or 1) * self.nodes > 1
        return self.devices is not None and (several or self.restarts > 0)

    def command(self, package: str) -> list[str]:
        """Return the words between Python and the program's own arguments."""
        if not self.uses_torchrun:
            return ["-m", package]
        words = ["-m", TORCHRUN, *self._meeting(package)]
        words += ["--nproc-per-node", str(self.devices)]
        if self.restarts:
            words += ["--max-restarts", str(self.restarts)]
        return [*words, "--signals-to-handle", _SIGNALS, "-m", package]

    def _meeting(self, package: str) -> list[str]:
        if self.nodes == 1:
            return ["--standalone"]
        assert self.rendezvous is not None
        words = ["--nnodes", str(self.nodes)]
        if self.node_rank is None:
            backend = ["--rdzv-backend", "c10d"]
        else:
            backend = ["--node-rank", str(self.node_rank), "--rdzv-backend", "static"]
        endpoint = ["--rdzv-endpoint", self.rendezvous, "--rdzv-id", package]
        return [*words, *backend, *endpoint]

    def trainer_options(self) -> list[str]:
        """Return what tells the program's Trainer the same numbers."""
        if self.devices is None:
            return []
        nodes = ["--trainer.num_nodes", str(self.nodes)] if self.nodes > 1 else []
        return ["--trainer.devices", str(self.devices), *nodes]

    def environment(self) -> dict[str, str]:
        """Return what the processes need in addition, unless the user has set it.

        Source: torchrun sets one thread a process, and warns; the runtime shares the
        cores out where it starts the processes itself, as is done here.
        """
        if not self.uses_torchrun or "OMP_NUM_THREADS" in os.environ:
            return {}
        if hasattr(os, "sched_getaffinity"):  # in a container, say, it may not use all
            processors = len(os.sched_getaffinity(0))
        else:
            processors = os.cpu_count() or 1
        share = processors // (self.devices or 1)
        return {"OMP_NUM_THREADS": str(max(1, share))}


def read_launch(
    devices: str | None,
    overrides: list[str],
    configs: list[Path],
    nodes: int | None = None,
    node_rank: int | None = None,
    rendezvous: str | None = None,
    restarts: int | None = None,
) -> Launch:
    """Check the options of a launch together, and count the devices for "auto".

    Args:
        devices: A number, "auto", or None if the option is not there.
        overrides: What else was typed, for the program.
        configs: The configuration files, of which the last one counts.
        nodes: The number of machines.
        node_rank: This machine's number.
        rendezvous: Where they meet.
        restarts: How often all may be started again.

    Raises:
        UsageError: One has no accepted form, needs another, or contradicts another.
    """
    _check_spelling(overrides)
    if devices is None:
        others = {
            "--nodes": nodes,
            "--node-rank": node_rank,
            "--rendezvous": rendezvous,
            "--restarts": restarts,
        }
        for option, value in others.items():
            if value is not None:
                raise UsageError(
                    f"`{option} {value}` without `--devices`",
                    where=f"option {option}",
                    accepted="it together with the number of processes on each machine",
                    todo=f"add --devices N, or --devices auto: --devices 2 {option} {value}",
                )
        return Launch()
    _check_alone(overrides)
    _check_restarts(restarts or 0, node_rank)
    _check_meeting(nodes, node_rank, rendezvous)
    count = _read_devices(devices, overrides, configs)
    return Launch(count, nodes or 1, node_rank, rendezvous, restarts or 0)


def _check_spelling(overrides: list[str]) -> None:
    """Refuse a slip here: the program, in all its processes, knows none of these."""
    for word in overrides:
        name = word.partition("=")[0]
        if near := nearest(name, _OWN, cutoff=_SLIP):
            is_known = near == name
            raise UsageError(
                (
                    f"`{name}` is for `lightgen train` only"
                    if is_known
                    else f"unknown option `{name}`"
                ),
                where=f"option {name}",
                accepted=", ".join(_OWN[:1] if is_known else _OWN),
                todo=f"remove {name}" if is_known else f"did you mean {near}?",
            )


def _check_alone(overrides: list[str]) -> None:
    for word in overrides:
        name = word.partition("=")[0]
        if name in _SET_BY_DEVICES:
            own = "--devices" if name == "--trainer.devices" else "--nodes"
            raise UsageError(
                f"`--devices` and `{name}` both say how many processes there are",
                where=f"option {name}",
                accepted="one of the two",
                todo=f"remove {name}: {own} sets it for the program, too",
            )


def _check_restarts(restarts: int, node_rank: int | None) -> None:
    if restarts < 0:
        raise UsageError(
            f"`--restarts {restarts}` is less than none",
            where="option --restarts",
            accepted="a number from 0",
            todo="for example: --restarts 3",
        )
    if restarts and node_rank is not None:
        raise UsageError(
            "`--restarts` with `--node-rank`: machines with fixed numbers cannot meet again",
            where="option --node-rank",
            accepted="--restarts with machines that torch numbers by their arrival",
            todo="remove --node-rank",
        )


def _check_meeting(
    nodes: int | None, node_rank: int | None, rendezvous: str | None
) -> None:
    if nodes is not None and nodes < 1:
        raise UsageError(
            f"`--nodes {nodes}` is no number of machines",
            where="option --nodes",
            accepted="a number from 1",
            todo="for example: --nodes 2 --rendezvous HOST:29400",
        )
    if (nodes or 1) > 1 and rendezvous is None:
        raise UsageError(
            f"`--nodes {nodes}` without `--rendezvous`: the machines cannot find each other",
            where="option --nodes",
            accepted="the name of one of them, and a free port there",
            todo=f"add it, the same on each: --nodes {nodes} --rendezvous HOST:29400",
        )
    if (nodes or 1) == 1:
        for option, value in (("--node-rank", node_rank), ("--rendezvous", rendezvous)):
            if value is not None:
                raise UsageError(
                    f"`{option} {value}` with one machine",
                    where=f"option {option}",
                    accepted="it together with --nodes M, M from 2",
                    todo=f"add --nodes, or remove {option}",
                )
        return
    assert nodes is not None and rendezvous is not None
    if node_rank is not None and not 0 <= node_rank < nodes:
        raise UsageError(
            f"`--node-rank {node_rank}` of {nodes} machines",
            where="option --node-rank",
            accepted=f"a number from 0 to {nodes - 1}, another one on each machine",
            todo="leave it out to have torch number them",
        )
    match = _ENDPOINT.fullmatch(rendezvous)
    if match is None or not 0 < int(match["port"]) <= _LAST_PORT:
        raise UsageError(
            f"`--rendezvous {rendezvous}` is no HOST:PORT",
            where="option --rendezvous",
            accepted=f"a host's name or address, a colon, a port from 1 to {_LAST_PORT}",
            todo="for example: --rendezvous node0:29400",
        )


def _read_devices(devices: str, overrides: list[str], configs: list[Path]) -> int:
    if devices == "auto":
        return _count_devices(_accelerator(overrides, configs))
    if devices.isdecimal() and devices.isascii() and int(devices) > 0:
        return int(devices)
    raise UsageError(
        f"`--devices {devices}` is no number of devices",
        where="option --devices",
        accepted="a number from 1, or auto",
        todo="for example: --devices 2; devices by their numbers with --trainer.devices 0,2",
    )


def _accelerator(overrides: list[str], configs: list[Path]) -> str:
    """Return the accelerator that the program will be told, which "auto" counts."""
    name = "--trainer.accelerator"
    typed = [word.removeprefix(f"{name}=") for word in overrides]
    for at in reversed(range(len(overrides))):
        if typed[at] != overrides[at]:
            return typed[at]
        if overrides[at] == name and at + 1 < len(overrides):
            return overrides[at + 1]
    for path in reversed(configs):
        trainer = _settings(path).get("trainer")
        if isinstance(trainer, dict) and trainer.get("accelerator"):
            return str(trainer["accelerator"])
    return "auto"


def _settings(path: Path) -> dict[str, Any]:
    import yaml

    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError):
        return {}  # the program says what is wrong with it
    return settings if isinstance(settings, dict) else {}


def _count_devices(accelerator: str) -> int:
    """Ask a Python of its own, because looking for devices takes torch."""
    done = subprocess.run(
        [sys.executable, "-c", _COUNT, accelerator],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return int(done.stdout)
    last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    said = re.sub(r"^[\w.]+(Exception|Error): ", "", last)
    raise UsageError(
        f"`--devices auto`: the devices cannot be counted: {said}",
        where="option --devices",
        accepted="auto, where torch finds devices of the accelerator",
        todo="choose another --trainer.accelerator, or give the number: --devices 2",
    )
