"""`lightgen cluster`: writes the file that starts the project on a cluster."""

from __future__ import annotations

import difflib
from typing import Annotated, Any

import typer

from lightgen import console
from lightgen.blocks.job_file import JobFile, plan
from lightgen.blocks.optimizer import refuse_read_only
from lightgen.cluster.job import Job
from lightgen.cluster.kubernetes import KubernetesJob
from lightgen.cluster.slurm import SlurmJob
from lightgen.cluster.torchrun import TorchrunJob
from lightgen.errors import OutOfDateError
from lightgen.project.history import typed_command, write_command
from lightgen.project.journal import read_file
from lightgen.project.paths import working_folder
from lightgen.project.root import find_root
from lightgen.project.state import STATE_PATH, ProjectState, read_state

_NUMBER = int | None
_TEXT = str | None
_TEXTS = list[str] | None

Nodes = Annotated[_NUMBER, typer.Option(metavar="N", help="Machines.")]
Devices = Annotated[
    _NUMBER,
    typer.Option(metavar="N", help="Devices of each machine, one process for each."),
]
Cores = Annotated[
    _NUMBER,
    typer.Option(
        metavar="N", help="Cores of a process, which loads data, too; 0 says nothing."
    ),
]
Restarts = Annotated[
    _NUMBER,
    typer.Option(
        metavar="N", help="How often all processes start again after one has failed."
    ),
]
Setup = Annotated[
    _TEXTS,
    typer.Option(
        metavar="LINE",
        help='A command before the program, as in "source .venv/bin/activate"; may be repeated; '
        "none clears all.",
    ),
]
Rendezvous = Annotated[
    _TEXT,
    typer.Option(
        metavar="HOST:PORT", help="Of the first machine, as the others reach it."
    ),
]
Time = Annotated[
    _TEXT, typer.Option(metavar="TIME", help="The job's limit, as in 24:00:00 or 2-00.")
]
Partition = Annotated[
    _TEXT,
    typer.Option(metavar="NAME", help="Partition of the cluster; none is its default."),
]
Account = Annotated[
    _TEXT, typer.Option(metavar="NAME", help="Account that the job is charged to.")
]
Qos = Annotated[_TEXT, typer.Option(metavar="NAME", help="Quality of service.")]
SlurmMemory = Annotated[
    _TEXT,
    typer.Option(
        metavar="SIZE", help="Memory of a machine, as in 200G; 0 is all of it."
    ),
]
Gpus = Annotated[
    bool | None,
    typer.Option(
        "--gpus/--no-gpus",
        help="Ask for a GPU for each process, as is the default; not on CPUs alone.",
    ),
]
GpuType = Annotated[
    _TEXT,
    typer.Option(
        metavar="NAME", help="What the cluster calls its devices, as in a100."
    ),
]
Requeue = Annotated[
    bool | None,
    typer.Option(
        "--requeue/--no-requeue",
        help="Go back into the queue at the limit or after a lost machine, and go on.",
    ),
]
SignalBefore = Annotated[
    _NUMBER,
    typer.Option(
        metavar="SECONDS",
        help="How long before the limit the processes save; 0 is never.",
    ),
]
Image = Annotated[
    _TEXT, typer.Option(metavar="NAME", help="Image with the project in it.")
]
Kind = Annotated[
    _TEXT,
    typer.Option(
        metavar="job|pytorchjob", help="Plain Job, or PyTorchJob of Kubeflow."
    ),
]
Name = Annotated[
    _TEXT, typer.Option(metavar="NAME", help="Name of the job. Default: the package's.")
]
Namespace = Annotated[
    _TEXT,
    typer.Option(metavar="NAME", help="Namespace; none is that of whoever applies it."),
]
Claim = Annotated[
    _TEXT,
    typer.Option(
        metavar="NAME",
        help="PersistentVolumeClaim that keeps runs/. Default: NAME-runs.",
    ),
]
Workdir = Annotated[
    _TEXT, typer.Option(metavar="PATH", help="The project's folder in the image.")
]
SharedMemory = Annotated[
    _TEXT,
    typer.Option(metavar="SIZE", help="Of /dev/shm, which loaders with workers need."),
]
Memory = Annotated[
    _TEXT,
    typer.Option(
        metavar="SIZE", help="Memory of a pod, as in 200Gi; none is no limit."
    ),
]

DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show what would change; write nothing.")
]
Check = Annotated[
    bool, typer.Option("--check", help="Write nothing; exit 6 if anything would.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def slurm(
    nodes: Nodes = None,
    devices: Devices = None,
    time: Time = None,
    partition: Partition = None,
    account: Account = None,
    qos: Qos = None,
    memory: SlurmMemory = None,
    cpus_per_device: Cores = None,
    gpus: Gpus = None,
    gpu_type: GpuType = None,
    requeue: Requeue = None,
    signal_before: SignalBefore = None,
    setup: Setup = None,
    dry_run: DryRun = False,
    check: Check = False,
    as_json: AsJson = False,
) -> None:
    """Write cluster/slurm.sh, for sbatch; what is not said stays as it was.

    Before its time is over the job saves and goes back into the queue; there it goes on
    with its run. Lines of yours are kept; where you and the options changed the same
    line, both are shown and nothing is written.
    """
    _write(SlurmJob, locals())


def torchrun(
    nodes: Nodes = None,
    devices: Devices = None,
    rendezvous: Rendezvous = None,
    restarts: Restarts = None,
    setup: Setup = None,
    dry_run: DryRun = False,
    check: Check = False,
    as_json: AsJson = False,
) -> None:
    """Write cluster/torchrun.sh, for machines without a scheduler.

    It is started on each of them, with the number of the machine. Lines of yours are
    kept, and what is not said stays as it was.
    """
    _write(TorchrunJob, locals())


def kubernetes(
    nodes: Nodes = None,
    devices: Devices = None,
    image: Image = None,
    kind: Kind = None,
    name: Name = None,
    namespace: Namespace = None,
    claim: Claim = None,
    workdir: Workdir = None,
    shared_memory: SharedMemory = None,
    memory: Memory = None,
    cpus_per_device: Cores = None,
    gpus: Gpus = None,
    restarts: Restarts = None,
    dry_run: DryRun = False,
    check: Check = False,
    as_json: AsJson = False,
) -> None:
    """Write cluster/kubernetes.yaml, for kubectl: one pod a machine.

    A job goes on with the newest run in its claim that is not over. Lines of yours are
    kept, and what is not said stays as it was.
    """
    _write(KubernetesJob, locals())


def _write(kind: type[Job], said: dict[str, Any]) -> None:
    """Write a job file, or show what would be written.

    Args:
        kind: Which one.
        said: The command's arguments: the options, and `dry_run`, `check`, `as_json`.
    """
    dry_run, check, as_json = (said.pop(n) for n in ("dry_run", "check", "as_json"))
    given = {n: None if value == [] else value for n, value in said.items()}
    root = find_root(working_folder())
    seen = {path: read_file(root, path) for path in (STATE_PATH, kind.file)}
    state = read_state(root)
    found = plan(root, state, kind, given)
    if check and found.changes:
        raise OutOfDateError(
            f"`{kind.file}` is not what the options ask for",
            where=str(root / kind.file),
            todo="leave --check out, or look first: --dry-run",
        )
    writes = found.changes and not dry_run and not check
    if writes:
        if seen[kind.file] is not None:
            refuse_read_only(root / kind.file, kind.file)
        write_command(root, typed_command(), found.tree, seen)
    if as_json:
        console.put_json(
            {
                "command": f"cluster {kind.command}",
                "root": str(root),
                "file": kind.file,
                "status": found.status,
                "changed": found.changes,
                "written": sorted(found.tree) if writes else [],
                "options": found.job.record(),
                "diff": _diff(found),
            }
        )
    else:
        _show(found, state, written=writes)


def _show(found: JobFile, state: ProjectState, *, written: bool) -> None:
    job = found.job
    if not found.changes:
        console.put(f"Nothing to do: {job.file} is as asked.")
        return
    if not written:
        console.put(f"Nothing written. The plan for {job.file}:\n")
        console.put(_diff(found).rstrip())
        return
    if found.before == found.after:
        console.put(f"{job.file} says so already; the options are remembered.")
    elif found.status == "new":
        console.put(f"Wrote {job.file}.")
    else:
        kept = " Your edits are kept." if found.status == "edited" else ""
        console.put(f"Rewrote {job.file}.{kept}\n")
        console.put(_diff(found).rstrip())
    console.put("\nNext:")
    for line in job.start(state.package):
        console.put(f"  {line}")


def _diff(found: JobFile) -> str:
    name = found.job.file
    before = f"a/{name}" if found.before else "/dev/null"
    lines = difflib.unified_diff(
        found.before.splitlines(keepends=True),
        found.after.splitlines(keepends=True),
        before,
        f"b/{name}",
    )
    return "".join(lines)
