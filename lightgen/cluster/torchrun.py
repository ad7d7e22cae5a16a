"""A shell script for machines without a scheduler: torchrun on each of them."""

from __future__ import annotations

from dataclasses import dataclass

from lightgen.cluster import values
from lightgen.cluster.job import Job, program
from lightgen.errors import JobOptionError

MEET_WITHIN_S = 600
"""How long torchrun waits for the first machine; its default, a minute, is soon over."""


@dataclass(frozen=True)
class TorchrunJob(Job):
    """Options of torchrun.

    Attributes:
        rendezvous: HOST:PORT of the first machine; not used by one machine alone.
        restarts: How often all processes are started again after one has failed.
        setup: Commands before the program.
    """

    rendezvous: str = ""
    restarts: int = 0
    setup: tuple[str, ...] = ()

    command = "torchrun"
    file = "cluster/torchrun.sh"

    def check(self) -> None:
        """See `Job`."""
        super().check()
        if self.rendezvous:
            values.check_endpoint("option --rendezvous", self.rendezvous)
        elif self.nodes > 1:
            raise JobOptionError(
                f"{self.nodes} machines need a place to meet at",
                where="option --rendezvous",
                accepted="HOST:PORT of the first machine, as its others reach it",
                todo="--rendezvous HOST:29400",
            )
        values.check_number("option --restarts", self.restarts, 0, "new starts")
        for line in self.setup:
            values.check_line("option --setup", line)

    def start(self, package: str) -> list[str]:
        """See `Job`."""
        if self.nodes == 1:
            return [f"bash {self.file} 0"]
        return [f"bash {self.file} {node}" for node in range(self.nodes)]

    def text(self, package: str) -> str:
        """See `Job`."""
        return _TEXT.format(
            package=package,
            file=self.file,
            last=self.nodes - 1,
            setup="".join(f"{line}\n" for line in self.setup),
            options=launch_options(self),
            # One machine alone takes any port that is free.
            rendezvous=self.rendezvous if self.nodes > 1 else "localhost:0",
            meet=MEET_WITHIN_S,
            program=program(package, *program_options(self)),
        )


def launch_options(job: Job) -> str:
    """Spell torchrun's options that are the same on every machine."""
    restarts = getattr(job, "restarts", 0)
    return (
        f"--nnodes {job.nodes} --nproc-per-node {job.devices} --max-restarts {restarts}"
    )


def program_options(job: Job) -> list[str]:
    """Return the program's options that belong to the machines."""
    devices = ["--trainer.devices", str(job.devices)]
    return [*devices, "--trainer.num_nodes", str(job.nodes)]


_TEXT = """\
#!/bin/bash
# Trains {package} on machines without a scheduler. On each of them:
#   bash {file} NODE [--model.lr 0.001 ...]
# NODE is 0 on the machine of the rendezvous, at most {last}. All machines need the project's
# folder, best the same one on a file system that they share.
# `lightgen cluster torchrun` changes its lines by options and keeps yours.

set -e
cd "$(dirname "$0")/.."
if ! [ "$1" -ge 0 ] 2> /dev/null || [ "$1" -gt {last} ]; then
  echo "usage: bash {file} NODE, the number of this machine from 0 to {last}" >&2
  exit 2
fi
is_host=$(($1 == 0))
shift

{setup}export PYTHONPATH="src${{PYTHONPATH:+:$PYTHONPATH}}"
exec python -m torch.distributed.run \\
  {options} \\
  --rdzv-backend c10d --rdzv-id {package} --rdzv-endpoint {rendezvous} \\
  --rdzv-conf "is_host=$is_host,read_timeout={meet}" \\
  {program} "$@"
"""
