"""A batch script of SLURM: one task a device, started by srun.

srun itself gives the processes their ranks. torchrun between the two would end at
SIGUSR1, by which SLURM warns, without its processes; and once it is told to hand that
on, kill them 30 s later, saved or not.
"""

from __future__ import annotations

from dataclasses import dataclass

from lightgen.cluster import values
from lightgen.cluster.job import Job, program
from lightgen.errors import JobOptionError

# How long the other processes may take to end behind the first: rank 0 puts the job back
# into the queue last of all. A process that hangs after a crash is ended then.
_END_WITHIN_S = 300
_LONGEST_WARNING_S = 65_535  # Source: `man sbatch`, --signal
_PORTS = 15_000  # from as many on: below those that Linux gives to anybody


@dataclass(frozen=True)
class SlurmJob(Job):
    """Options of `sbatch`, "" where the cluster's default is meant.

    Attributes:
        time: Limit, as SLURM reads it.
        partition: Of the cluster.
        account: Who pays.
        qos: Quality of service.
        memory: Of a machine.
        cpus_per_device: Cores of a process; 0 for the cluster's default.
        gpus: Whether the job asks for GPUs; partitions without any refuse one that does.
        gpu_type: What the cluster calls its devices.
        requeue: Whether the job may go back into the queue.
        signal_before: Seconds before the limit at which the processes are told to save;
            0 for never.
        setup: Commands before the program.
    """

    time: str = ""
    partition: str = ""
    account: str = ""
    qos: str = ""
    memory: str = ""
    cpus_per_device: int = 0
    gpus: bool = True
    gpu_type: str = ""
    requeue: bool = True
    signal_before: int = 90
    setup: tuple[str, ...] = ()

    command = "slurm"
    file = "cluster/slurm.sh"

    def check(self) -> None:
        """See `Job`."""
        super().check()
        if self.time:
            values.check_time("option --time", self.time)
        if self.memory:
            values.check_slurm_memory("option --memory", self.memory)
        for name in ("partition", "account", "qos"):
            if value := getattr(self, name):
                values.check_slurm_name(f"option --{name}", value)
        if self.gpu_type:
            values.check_gpu_type("option --gpu-type", self.gpu_type)
        if self.gpu_type and not self.gpus:
            raise JobOptionError(
                f"a job without GPUs, and {self.gpu_type} as their type",
                where="options --no-gpus, --gpu-type",
                accepted="one of the two",
                todo="--no-gpus --gpu-type none, or --gpus",
            )
        cores = "cores; 0 is the cluster's default"
        values.check_number("option --cpus-per-device", self.cpus_per_device, 0, cores)
        self._check_signal()
        for line in self.setup:
            values.check_line("option --setup", line)

    def _check_signal(self) -> None:
        option = "option --signal-before"
        values.check_number(option, self.signal_before, 0, "seconds; 0 is no warning")
        limit = values.seconds_of(self.time) if self.time else 0
        most = min(_LONGEST_WARNING_S, limit - 1 if limit else _LONGEST_WARNING_S)
        if self.signal_before > most:
            raise JobOptionError(
                f"a warning {self.signal_before} seconds before the end comes at the start",
                where=option,
                accepted=f"a number from 0 to {most}, less than --time",
                todo="a longer --time, or a shorter --signal-before",
            )

    def start(self, package: str) -> list[str]:
        """See `Job`."""
        return [f"sbatch {self.file}"]

    def text(self, package: str) -> str:
        """See `Job`."""
        head = [f"#SBATCH --{line}" for line in self._settings(package)]
        setup = "".join(f"{line}\n" for line in self.setup)
        return "\n".join(
            [
                "#!/bin/bash",
                f"# Trains {package} as a job of SLURM. In the project's folder:",
                f"#   sbatch {self.file} [--model.lr 0.001 ...]",
                "# `lightgen cluster slurm` changes its lines by options and keeps yours.",
                *head,
                _BODY.format(
                    setup=f"{setup}\n" if setup else "",
                    port=_PORTS,
                    wait=_END_WITHIN_S,
                    program=program(package),
                ),
            ]
        )

    def _settings(self, package: str) -> list[str]:
        kind = f"{self.gpu_type}:" if self.gpu_type else ""
        settings = {
            "job-name": package,
            "nodes": self.nodes,
            "ntasks-per-node": self.devices,
            "gpus-per-node": f"{kind}{self.devices}" if self.gpus else "",
            "cpus-per-task": self.cpus_per_device,
            "mem": self.memory,
            "time": self.time,
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            # To every process, not to this script.
            "signal": f"USR1@{self.signal_before}" if self.signal_before else "",
        }
        lines = [f"{name}={value}" for name, value in settings.items() if value]
        # What was printed before a new start stays.
        return [*lines, "requeue" if self.requeue else "no-requeue", "open-mode=append"]


_BODY = """
set -e

# SLURM runs a copy of this file, in the folder that sbatch was called in.
if [ ! -f config.yaml ]; then
  echo "no config.yaml in $PWD: call sbatch in the project's folder" >&2
  exit 2
fi

{setup}export PYTHONPATH="src${{PYTHONPATH:+:$PYTHONPATH}}"
# Where the processes meet.
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR MASTER_PORT=$(({port} + SLURM_JOB_ID % {port}))
# srun does not take this from sbatch.
export SRUN_CPUS_PER_TASK="${{SLURM_CPUS_PER_TASK:-1}}"

# A job that SLURM starts again goes on with its run by itself: its command stays the same.
# shellcheck disable=SC2016
srun --kill-on-bad-exit=0 --wait={wait} bash -c '
  export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID GROUP_RANK=$SLURM_NODEID
  export WORLD_SIZE=$SLURM_NTASKS LOCAL_WORLD_SIZE=$SLURM_NTASKS_PER_NODE
  exec "$@"' task \\
  python {program} \\
  --trainer.devices "$SLURM_NTASKS_PER_NODE" --trainer.num_nodes "$SLURM_NNODES" \\
  "$@"
"""
