"""`lightgen train --devices`: the command that is built, and what is refused."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import pytest
from command_line import STATE, Cli, environment, put_files, run_process

from lightgen.commands.launching import read_launch

# Stands in for torch, and shows that `lightgen` needs nothing else to become torchrun.
TORCHRUN = "import json, os, sys\nprint(json.dumps([sys.argv[1:], dict(os.environ)]))\n"
PROGRAM = "import json, os, sys\nprint(json.dumps([sys.argv[1:], dict(os.environ)]))\n"
SIGNALS = ["--signals-to-handle", "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"]
FIT = ["fit", "--config", "config.yaml"]


@pytest.fixture
def project(work: Path) -> Path:
    return put_files(
        work / "project",
        {
            ".lightgen/state.json": json.dumps(STATE),
            "config.yaml": "model: {}\n",
            "src/mymodel/__init__.py": "",
            "src/mymodel/__main__.py": PROGRAM,
            "src/torch/__init__.py": "",
            "src/torch/distributed/__init__.py": "",
            "src/torch/distributed/run.py": TORCHRUN,
        },
    )


def started(
    project: Path, *arguments: str, **variables: str
) -> tuple[list[str], dict[str, str], str]:
    """Return the arguments, the environment and the printed command."""
    env = environment(**variables)
    if "OMP_NUM_THREADS" not in variables:
        env.pop("OMP_NUM_THREADS", None)
    done = run_process(*arguments, cwd=project, env=env)
    assert done.returncode == 0, done.stderr
    words, variables = json.loads(done.stdout)
    return words, variables, done.stderr.strip()


def test_one_machine(project: Path) -> None:
    words, variables, printed = started(project, "train", "--devices", "2", "--x", "1")
    program = ["-m", "mymodel", *FIT, "--trainer.devices", "2", "--x", "1"]
    assert words == ["--standalone", "--nproc-per-node", "2", *SIGNALS, *program]
    threads = variables["OMP_NUM_THREADS"]
    assert variables["LIGHTGEN_COMMAND"] == "lightgen train --devices 2 --x 1"
    tail = shlex.join(["-m", "torch.distributed.run", *words])
    assert printed.startswith("PYTHONPATH=")
    assert f" OMP_NUM_THREADS={threads} " in printed
    assert printed.endswith(tail)


@pytest.mark.parametrize(("processors", "threads"), [(8, "4"), (1, "1")])
def test_processors_that_may_be_used_are_shared_out(
    processors: int, threads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    usable = set(range(processors))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: usable, raising=False)
    launch = read_launch("2", [], [])
    assert launch.environment() == {"OMP_NUM_THREADS": threads}


def test_threads_that_the_user_has_set_stay(project: Path) -> None:
    _, variables, printed = started(
        project, "train", "--devices", "2", OMP_NUM_THREADS="7"
    )
    assert variables["OMP_NUM_THREADS"] == "7"
    assert "OMP_NUM_THREADS" not in printed


def test_restarts(project: Path) -> None:
    words, *_ = started(project, "train", "--devices", "1", "--restarts", "3")
    start = ["--standalone", "--nproc-per-node", "1", "--max-restarts", "3"]
    assert words[:5] == start


def test_several_machines(project: Path) -> None:
    meeting = ["--nodes", "2", "--rendezvous", "node0:29500"]
    words, *_ = started(project, "train", "--devices", "4", *meeting, "--restarts", "1")
    assert words == [
        *("--nnodes", "2", "--rdzv-backend", "c10d"),
        *("--rdzv-endpoint", "node0:29500", "--rdzv-id", "mymodel"),
        *("--nproc-per-node", "4", "--max-restarts", "1", *SIGNALS, "-m", "mymodel"),
        *(*FIT, "--trainer.devices", "4", "--trainer.num_nodes", "2"),
    ]
    words, *_ = started(
        project, "train", "--devices", "1", *meeting, "--node-rank", "1"
    )
    assert words[:6] == [
        *("--nnodes", "2", "--node-rank", "1", "--rdzv-backend", "static"),
    ]


@pytest.mark.parametrize(
    "options", [["--devices", "1"], ["--devices", "2", "--print-config"]]
)
def test_one_process_is_the_program_itself(project: Path, options: list[str]) -> None:
    words, variables, _ = started(project, "train", *options)
    assert words[0] == "fit"
    assert words[-2:] == ["--trainer.devices", options[1]]
    assert "OMP_NUM_THREADS" not in variables


def test_other_verbs_take_devices_alone(project: Path) -> None:
    words, *_ = started(project, "test", "--devices", "2", "--ckpt", "best")
    own = ["test", "--config", "config.yaml", "--ckpt_path", "best"]
    assert words[-8:] == ["mymodel", *own, "--trainer.devices", "2"]
    shown = run_process("predict", "--help", cwd=project).stdout
    assert "--devices" in shown
    assert "--nodes" not in shown


@pytest.mark.parametrize(
    ("typed", "configured", "counted"),
    [
        ([], "", "auto"),
        ([], "trainer: {accelerator: gpu}\n", "gpu"),
        (["--trainer.accelerator", "cpu"], "trainer: {accelerator: gpu}\n", "cpu"),
        (["--trainer.accelerator=mps"], "", "mps"),
    ],
)
def test_auto_counts_what_the_program_would_take(
    project: Path, typed: list[str], configured: str, counted: str, work: Path
) -> None:
    (project / "config.yaml").write_text(configured)
    count = 'open("counted", "a").write(name) and [0, 0, 0]'
    put_files(
        work / "stub/lightgen_runtime",
        {
            "__init__.py": "",
            "accelerators.py": f"def choose_devices(name):\n    return {count}\n",
        },
    )
    path = f"{work / 'stub'}{os.pathsep}{environment()['PYTHONPATH']}"
    words, *_ = started(project, "train", "--devices", "auto", *typed, PYTHONPATH=path)
    assert words[2] == "3"
    assert words[words.index("--trainer.devices") + 1] == "3"
    assert (project / "counted").read_text() == counted


MEET = ("--nodes", "2", "--rendezvous")


@pytest.mark.parametrize(
    ("options", "says", "where"),
    [
        (["--devices", "0"], "`--devices 0` is no number of devices", "--devices"),
        (["--devices", "two"], "`--devices two`", "--devices"),
        (["--devices", "-1"], "`--devices -1`", "--devices"),
        (["--nodes", "2"], "`--nodes 2` without `--devices`", "--nodes"),
        (["--restarts", "2"], "`--restarts 2` without `--devices`", "--restarts"),
        (["--devices", "2", "--restarts", "-1"], "less than none", "--restarts"),
        (["--devices", "2", "--nodes", "0"], "`--nodes 0`", "--nodes"),
        (["--devices", "2", "--nodes", "2"], "without `--rendezvous`", "--nodes"),
        (["--devices", "2", "--node-rank", "0"], "with one machine", "--node-rank"),
        (["--devices", "2", *MEET, "host"], "no HOST:PORT", "--rendezvous"),
        (["--devices", "2", *MEET, "host:"], "no HOST:PORT", "--rendezvous"),
        (["--devices", "2", *MEET, "host:70000"], "no HOST:PORT", "--rendezvous"),
        (["--devices", "2", *MEET, "::1:2"], "no HOST:PORT", "--rendezvous"),
        (
            ["--devices", "2", *MEET, "h:1", "--node-rank", "2"],
            "`--node-rank 2` of 2 machines",
            "--node-rank",
        ),
        (
            ["--devices", "2", *MEET, "h:1", "--node-rank", "0", "--restarts", "1"],
            "cannot meet again",
            "--node-rank",
        ),
        (
            ["--devices", "2", "--restart", "3"],
            "unknown option `--restart`",
            "--restart",
        ),
        (["--devices", "2", "--node_rank=0"], "`--node_rank`", "--node_rank"),
        (
            ["--devices", "2", "--trainer.devices=4"],
            "`--devices` and `--trainer.devices` both say",
            "--trainer.devices",
        ),
        (
            ["--devices", "2", "--trainer.num_nodes", "1"],
            "`--devices` and `--trainer.num_nodes` both say",
            "--trainer.num_nodes",
        ),
    ],
)
def test_bad_input_is_one_clear_error(
    project: Path,
    options: list[str],
    says: str,
    where: str,
    run_cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(project)
    done = run_cli("train", *options)
    assert done.code == 2
    first, *rest = done.err.splitlines()
    assert first.startswith("error: ")
    assert says in first
    labels = [line.split(":")[0].strip() for line in rest]
    assert labels == ["where", "accepted", "next"]
    assert rest[0].endswith(f"option {where}")
    assert done.out == ""


@pytest.mark.parametrize("options", [["--devices", "2"], []])
def test_option_of_a_fit_is_refused_elsewhere(
    project: Path,
    options: list[str],
    run_cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(project)
    done = run_cli("validate", *options, "--restarts", "3")
    assert done.code == 2
    assert "`--restarts` is for `lightgen train` only" in done.err


def test_slip_in_the_only_option_of_a_launch(
    project: Path, run_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    done = run_cli("train", "--device", "2")
    assert done.code == 2
    assert "did you mean --devices?" in done.err


def test_devices_that_cannot_be_counted(project: Path) -> None:
    options = ["--devices", "auto", "--trainer.accelerator", "tpu"]
    done = run_process("train", *options, cwd=project)
    assert done.returncode == 2
    assert "cannot be counted" in done.stderr
    assert "'tpu'" in done.stderr
    assert "MisconfigurationException" not in done.stderr
    assert "Traceback" not in done.stderr
