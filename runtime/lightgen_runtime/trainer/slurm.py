"""What the environment tells of a SLURM job, and putting the job back into its queue."""

from __future__ import annotations

import os
import subprocess

from lightgen_runtime.strategies.environments import ClusterEnvironment
from lightgen_runtime.strategies.environments.slurm import (
    INTERACTIVE,
    SLURMEnvironment,
)
from lightgen_runtime.utilities.rank_zero import rank_zero_info, rank_zero_warn


def batch_job() -> str | None:
    """Return the number of the SLURM job that this process belongs to.

    An interactive session is none: nobody starts its program again.
    """
    job = os.environ.get("SLURM_JOB_ID", "")
    interactive = os.environ.get("SLURM_JOB_NAME") in INTERACTIVE
    return job if job.isdigit() and not interactive else None


def task() -> int:
    """Return the number of this process among those that `srun` has started."""
    number = os.environ.get("SLURM_PROCID", "0")
    return int(number) if number.isdigit() else 0


def restarted_job() -> str | None:
    """Return the number of the job if SLURM has started it before."""
    restarts = os.environ.get("SLURM_RESTART_COUNT", "0")
    return batch_job() if restarts.isdigit() and int(restarts) > 0 else None


def requeue_signal(environment: ClusterEnvironment | None) -> int | None:
    """Return the number of the warning after which a job is requeued; None for none.

    Args:
        environment: Who has started this process; a `SLURMEnvironment` may say otherwise
            than SIGUSR1, which is the signal by which Lightning 2.6.6 requeues.
    """
    settings = environment
    if not isinstance(settings, SLURMEnvironment):
        settings = SLURMEnvironment()
    return settings.requeue_signal if settings.auto_requeue else None


def requeue() -> None:
    """Put this process's job back into the queue; warn if that fails."""
    array, task = (
        os.environ.get(f"SLURM_ARRAY_{name}") for name in ("JOB_ID", "TASK_ID")
    )
    job = f"{array}_{task}" if array and task else os.environ["SLURM_JOB_ID"]
    command = ["scontrol", "requeue", job]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        problem = done.stderr.strip() or f"exit code {done.returncode}"
    except OSError as error:
        done, problem = None, str(error)
    if done is not None and done.returncode == 0:
        rank_zero_info(f"Job {job} is back in the queue of SLURM")
        return
    rank_zero_warn(
        f"`{' '.join(command)}` failed: {problem}. The job is not started again by "
        "itself; `Preemption(requeue=False)` leaves that to the cluster."
    )
