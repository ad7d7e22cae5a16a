"""`lightgen cluster` as a user meets it: options, edits, conflicts, taking it back."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from command_line import Cli, snapshot

from lightgen.cluster.values import seconds_of

SLURM = "cluster/slurm.sh"
STATE = ".lightgen/state.json"


def cluster(run_cli: Cli, *arguments: str) -> str:
    result = run_cli("cluster", *arguments)
    assert result.code == 0, result.err
    return result.out


def edit(project: Path, old: str, new: str, path: str = SLURM) -> None:
    text = (project / path).read_text()
    assert text.count(old) == 1, old
    (project / path).write_text(text.replace(old, new))


def contents(project: Path) -> dict[str, object]:
    """Everything but the history, which grows."""
    files = snapshot(project)
    return {p: f for p, f in files.items() if not p.startswith(".lightgen/history")}


def settings(project: Path) -> list[str]:
    lines = (project / SLURM).read_text().splitlines()
    return [line for line in lines if line.startswith("#SBATCH")]


def test_options_become_the_lines_of_the_job(run_cli: Cli, project: Path) -> None:
    options = ["--nodes", "2", "--devices", "8", "--time", "24:00:00"]
    options += ["--partition", "gpu", "--account", "lab", "--qos", "long"]
    options += ["--memory", "200G", "--cpus-per-device", "12", "--gpu-type", "a100"]
    options += ["--signal-before", "120", "--no-requeue"]
    options += ["--setup", "module load cuda", "--setup", "source .venv/bin/activate"]
    assert "sbatch cluster/slurm.sh" in cluster(run_cli, "slurm", *options)
    assert settings(project) == [
        "#SBATCH --job-name=mymodel",
        "#SBATCH --nodes=2",
        "#SBATCH --ntasks-per-node=8",
        "#SBATCH --gpus-per-node=a100:8",
        "#SBATCH --cpus-per-task=12",
        "#SBATCH --mem=200G",
        "#SBATCH --time=24:00:00",
        "#SBATCH --partition=gpu",
        "#SBATCH --account=lab",
        "#SBATCH --qos=long",
        "#SBATCH --signal=USR1@120",
        "#SBATCH --no-requeue",
        "#SBATCH --open-mode=append",
    ]
    text = (project / SLURM).read_text()
    assert "\nmodule load cuda\nsource .venv/bin/activate\n" in text


def test_job_for_cpus_asks_for_no_gpus(run_cli: Cli, project: Path) -> None:
    options = ["--devices", "8", "--no-gpus"]
    cluster(run_cli, "slurm", *options)
    assert "#SBATCH --ntasks-per-node=8" in settings(project)
    assert "gpu" not in " ".join(settings(project))
    cluster(run_cli, "slurm", "--time", "48:00:00")
    assert "gpu" not in " ".join(settings(project))
    cluster(run_cli, "slurm", "--gpus")
    assert "#SBATCH --gpus-per-node=8" in settings(project)


def test_what_is_not_said_stays_and_none_takes_it_back(
    run_cli: Cli, project: Path
) -> None:
    cluster(run_cli, "slurm", "--nodes", "2", "--partition", "gpu", "--setup", "a b")
    cluster(run_cli, "slurm", "--time", "48:00:00")
    assert "#SBATCH --nodes=2" in settings(project)
    assert "#SBATCH --partition=gpu" in settings(project)
    cluster(run_cli, "slurm", "--partition", "none", "--setup", "none")
    assert "#SBATCH --time=48:00:00" in settings(project)
    assert "partition" not in (project / SLURM).read_text()
    assert "a b" not in (project / SLURM).read_text()


def test_edits_survive_changes_beside_them(run_cli: Cli, project: Path) -> None:
    cluster(run_cli, "slurm", "--nodes", "2", "--time", "24:00:00")
    edit(
        project,
        "#SBATCH --nodes=2\n",
        "#SBATCH --nodes=2\n#SBATCH --constraint=nvlink\n",
    )
    edit(project, "#SBATCH --signal=USR1@90\n", "")
    edit(project, "set -e\n", "set -e\nexport NCCL_DEBUG=INFO\n")
    done = cluster(run_cli, "slurm", "--time", "2-00", "--devices", "4")
    assert "Your edits are kept." in done
    lines = settings(project)
    assert "#SBATCH --constraint=nvlink" in lines
    assert "#SBATCH --time=2-00" in lines
    assert "#SBATCH --ntasks-per-node=4" in lines
    text = (project / SLURM).read_text()
    assert "export NCCL_DEBUG=INFO\n" in text
    assert "signal" not in text


def test_edits_survive_in_a_file_with_other_line_ends(
    run_cli: Cli, project: Path
) -> None:
    cluster(run_cli, "slurm", "--time", "24:00:00")
    content = (project / SLURM).read_bytes() + b"# mine\n"
    (project / SLURM).write_bytes(content.replace(b"\n", b"\r\n"))
    cluster(run_cli, "slurm", "--time", "2-00")
    new = content.replace(b"24:00:00", b"2-00").replace(b"\n", b"\r\n")
    assert (project / SLURM).read_bytes() == new


def test_conflict_names_the_line_and_both_texts(run_cli: Cli, project: Path) -> None:
    cluster(run_cli, "slurm", "--nodes", "2", "--time", "24:00:00")
    edit(project, "--time=24:00:00", "--time=12:00:00")
    before = snapshot(project)
    result = run_cli("cluster", "slurm", "--time", "48:00:00", "--nodes", "4")
    assert result.code == 3
    assert "you:       #SBATCH --time=12:00:00" in result.err
    assert "generator: #SBATCH --time=48:00:00" in result.err
    assert "cluster/slurm.sh:9" in result.err
    assert snapshot(project) == before
    # Giving the option what was written by hand settles it.
    cluster(run_cli, "slurm", "--time", "12:00:00")
    assert "#SBATCH --time=12:00:00" in settings(project)
    cluster(run_cli, "slurm", "--time", "48:00:00")
    assert "#SBATCH --time=48:00:00" in settings(project)


def test_option_that_was_written_by_hand_is_not_outdone(
    run_cli: Cli, project: Path
) -> None:
    """sbatch takes the last of two lines: the option would be without effect."""
    cluster(run_cli, "slurm")
    edit(project, "set -e\n", "#SBATCH --partition=debug\nset -e\n")
    result = run_cli("cluster", "slurm", "--partition", "gpu")
    assert result.code == 3
    assert "you:       #SBATCH --partition=debug" in result.err
    assert "generator: #SBATCH --partition=gpu" in result.err
    said = cluster(run_cli, "slurm", "--partition", "debug")
    assert "says so already; the options are remembered" in said
    assert settings(project).count("#SBATCH --partition=debug") == 1


def test_editor_that_cuts_the_last_line_end(run_cli: Cli, project: Path) -> None:
    cluster(run_cli, "torchrun")
    path = project / "cluster/torchrun.sh"
    path.write_text(path.read_text().rstrip())
    cluster(run_cli, "torchrun", "--devices", "2")
    assert path.read_text().endswith('--trainer.devices 2 --trainer.num_nodes 1 "$@"')


def test_emptied_file_is_written_anew(run_cli: Cli, project: Path) -> None:
    cluster(run_cli, "slurm")
    before = (project / SLURM).read_text()
    (project / SLURM).write_text("")
    assert "Wrote cluster/slurm.sh" in cluster(run_cli, "slurm")
    assert (project / SLURM).read_text() == before


@pytest.mark.parametrize("there", ["cluster/slurm.sh/x", "cluster"])
def test_what_is_in_the_way_is_named(there: str, run_cli: Cli, project: Path) -> None:
    (project / there).parent.mkdir(parents=True, exist_ok=True)
    (project / there).touch()
    result = run_cli("cluster", "slurm")
    assert result.code == 3
    assert f"`{there.removesuffix('/x')}` is in the way" in result.err


def test_a_second_time_there_is_nothing_to_do(run_cli: Cli, project: Path) -> None:
    options = ["slurm", "--nodes", "2"]
    cluster(run_cli, *options)
    before = snapshot(project)
    assert "Nothing to do" in cluster(run_cli, *options)
    assert "Nothing to do" in cluster(run_cli, *options, "--check")
    assert snapshot(project) == before


@pytest.mark.parametrize(("flag", "code"), [("--dry-run", 0), ("--check", 6)])
def test_looking_writes_nothing(
    flag: str, code: int, run_cli: Cli, project: Path
) -> None:
    for options in (["--nodes", "2"], ["--nodes", "3"]):
        before = snapshot(project)
        result = run_cli("cluster", "slurm", *options, flag)
        assert result.code == code
        assert snapshot(project) == before
        if flag == "--dry-run":
            assert f"+#SBATCH --nodes={options[1]}" in result.out
        cluster(run_cli, "slurm", *options)


def test_json_tells_options_and_difference(run_cli: Cli, project: Path) -> None:
    found = json.loads(cluster(run_cli, "torchrun", "--devices", "4", "--json"))
    assert found["command"] == "cluster torchrun"
    assert found["file"] == "cluster/torchrun.sh"
    assert found["changed"] is True
    assert set(found["written"]) >= {"cluster/torchrun.sh", STATE}
    assert found["options"]["devices"] == 4
    assert "+++ b/cluster/torchrun.sh" in found["diff"]
    again = json.loads(cluster(run_cli, "torchrun", "--json"))
    assert (again["changed"], again["written"]) == (False, [])
    assert again["status"] == "pristine"


def test_undo_and_redo_take_it_back_and_do_it_again(
    run_cli: Cli, project: Path
) -> None:
    empty = contents(project)
    cluster(run_cli, "slurm", "--nodes", "2")
    first = contents(project)
    cluster(run_cli, "slurm", "--nodes", "4")
    second = contents(project)
    assert run_cli("undo").code == 0
    assert contents(project) == first
    assert run_cli("undo").code == 0
    assert contents(project) == empty
    assert run_cli("redo").code == 0
    assert run_cli("redo").code == 0
    assert contents(project) == second
    edit(project, "#SBATCH --open-mode=append\n", "")
    assert run_cli("undo").code == 0
    assert "#SBATCH --nodes=2" in settings(project)
    assert "append" not in (project / SLURM).read_text()


def test_status_and_doctor_know_the_file(run_cli: Cli, project: Path) -> None:
    cluster(run_cli, "slurm")
    assert "pristine     cluster/slurm.sh" in run_cli("status", "--all").out
    edit(project, "--nodes=1", "--nodes=3")
    assert "edited       cluster/slurm.sh" in run_cli("status").out
    assert run_cli("doctor").code == 0
    (project / SLURM).unlink()
    assert "deleted      cluster/slurm.sh" in run_cli("status").out
    cluster(run_cli, "slurm", "--devices", "2")  # which writes it anew
    assert "pristine     cluster/slurm.sh" in run_cli("status", "--all").out
    assert "#SBATCH --ntasks-per-node=2" in settings(project)


def test_optimizer_block_is_still_regenerated(run_cli: Cli, project: Path) -> None:
    cluster(run_cli, "slurm")
    assert run_cli("regen", "optimizer", "--lr", "0.5", "--no-verify").code == 0
    assert "Nothing to do" in cluster(run_cli, "slurm", "--check")


def test_file_of_the_users_own_is_not_replaced(run_cli: Cli, project: Path) -> None:
    (project / "cluster").mkdir()
    (project / SLURM).write_text("#!/bin/bash\necho mine\n")
    before = snapshot(project)
    result = run_cli("cluster", "slurm")
    assert result.code == 3
    assert "lightgen did not write it" in result.err
    assert snapshot(project) == before


def test_links_and_protected_files_are_left_alone(run_cli: Cli, project: Path) -> None:
    cluster(run_cli, "slurm")
    (project / SLURM).chmod(0o444)
    assert "read-only" in run_cli("cluster", "slurm", "--nodes", "2").err
    (project / SLURM).rename(project / "elsewhere.sh")
    (project / SLURM).symlink_to("../elsewhere.sh")
    result = run_cli("cluster", "slurm", "--nodes", "2")
    assert result.code == 3
    assert "is a link" in result.err


def test_lost_pristine_text_is_said(run_cli: Cli, project: Path) -> None:
    cluster(run_cli, "slurm")
    (project / ".lightgen/base/cluster/slurm.sh.base").unlink()
    result = run_cli("cluster", "slurm", "--nodes", "2")
    assert result.code == 2
    assert "move cluster/slurm.sh away" in result.err
    (project / SLURM).unlink()
    cluster(run_cli, "slurm", "--nodes", "2")


def test_damaged_options_are_said(run_cli: Cli, project: Path) -> None:
    cluster(run_cli, "slurm", "--nodes", "2")
    for old, new in (('"nodes": 2', '"nodes": "2"'), ('"nodes": "2"', '"nudes": 2')):
        edit(project, old, new, STATE)
        result = run_cli("cluster", "slurm")
        assert result.code == 2
        assert "the options of `cluster/slurm.sh` cannot be read" in result.err
        assert "state.json" in result.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("slurm --time 24h", ["'24h' is no time", "--time 24:00:00"]),
        ("slurm --time 1:2:3:4", ["option --time"]),
        ("slurm --time 2days", ["--time 2-00"]),
        (
            "slurm --devices 0",
            ["0 is too small", "option --devices", "a number from 1"],
        ),
        ("slurm --nodes -1", ["option --nodes"]),
        ("slurm --nodes two", ["`--nodes two` is no", "option --nodes", "a whole"]),
        ("slurm --nodes=2x --nodes=", ["`--nodes` is no whole number"]),
        ("slurm --nodes", ["requires an argument", "lightgen cluster slurm --help"]),
        ("slurm --time 1 --signal-before 60", ["option --signal-before", "0 to 59"]),
        ("slurm --time 1", ["90 seconds before the end comes at the start"]),
        ("slurm --signal-before 70000", ["0 to 65535"]),
        ("slurm --gpu-type a100:4", ["option --gpu-type", "--devices"]),
        ("slurm --no-gpus --gpu-type a100", ["--no-gpus --gpu-type none, or --gpus"]),
        ("slurm --memory 16GB", ["option --memory", "200G"]),
        ("slurm --signal-before -5", ["option --signal-before"]),
        ("slurm --cpus-per-device -1", ["option --cpus-per-device"]),
        ("slurm --partition a;b", ["option --partition"]),
        ("slurm --partiton a", ["unknown option `--partiton`", "mean --partition?"]),
        ("slrum", ["No such command", "`slurm`", "cluster --help"]),
        ("torchrun --nodes 2", ["--rendezvous HOST:29400"]),
        ("torchrun --rendezvous host1", ["--rendezvous host1:29400"]),
        ("torchrun --rendezvous host1:x", ["HOST:PORT"]),
        ("torchrun --restarts -1", ["option --restarts"]),
        ("kubernetes", ["needs an image", "--image"]),
        ("kubernetes --image a/b --name My_Job", ["a letter first", "--name my-job"]),
        ("kubernetes --image a/b --name 1job", ["a letter first", "--name job"]),
        (f"kubernetes --image a/b --name {'x' * 51}", ["at most 50"]),
        ("kubernetes --image a/b --namespace -x", ["option --namespace"]),
        ("kubernetes --image a/b --claim A", ["option --claim", "--claim a"]),
        ("kubernetes --image a/b --kind pytorchjo", ["--kind pytorchjob"]),
        ("kubernetes --image a/b --shared-memory 16GB", ["option --shared-memory"]),
        ("kubernetes --image a/b --memory much", ["option --memory"]),
        ("kubernetes --image a/b --workdir app", ["absolute path"]),
    ],
)
def test_mistakes_are_answered(
    arguments: str, expected: list[str], run_cli: Cli, project: Path
) -> None:
    before = snapshot(project)
    result = run_cli("cluster", *arguments.split())
    assert result.code == 2, result.out
    for text in expected:
        assert text in result.err
    assert result.err.startswith("error:")
    assert "  next:     " in result.err
    assert snapshot(project) == before


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        *(("30", 1800), ("1:30", 90), ("2:00:05", 7205), ("1-12", 129_600)),
        *(("1-12:30", 131_400), ("1-0:0:1", 86_401), ("0", 0)),
    ],
)
def test_times_of_slurm_are_read(time: str, seconds: int) -> None:
    assert seconds_of(time) == seconds


def test_none_brings_a_default_back(run_cli: Cli, project: Path) -> None:
    options = ["kubernetes", "--image", "a/b", "--json"]
    first = json.loads(cluster(run_cli, *options))["options"]
    changed = ["--workdir", "/app", "--shared-memory", "1Gi", "--kind", "pytorchjob"]
    cluster(run_cli, *options, *changed)
    cleared = [word if word.startswith("--") else "none" for word in changed]
    assert json.loads(cluster(run_cli, *options, *cleared))["options"] == first


def test_one_machine_does_not_wait_for_a_former_meeting(
    run_cli: Cli, project: Path
) -> None:
    cluster(run_cli, "torchrun", "--nodes", "2", "--rendezvous", "host1:29400")
    cluster(run_cli, "torchrun", "--nodes", "1")
    assert "host1" not in (project / "cluster/torchrun.sh").read_text()


def test_setup_is_one_line_each(run_cli: Cli, project: Path) -> None:
    result = run_cli("cluster", "slurm", "--setup", "a\nb")
    assert result.code == 2
    assert "may be repeated" in result.err


@pytest.mark.parametrize(
    "options",
    [
        ["slurm", "--setup", "module load cuda", "--gpu-type", "a100"],
        ["torchrun"],
        ["torchrun", "--nodes", "2", "--rendezvous", "[::1]:29400", "--restarts", "3"],
    ],
)
def test_scripts_are_well_formed(
    options: list[str], run_cli: Cli, project: Path
) -> None:
    cluster(run_cli, *options)
    path = project / "cluster" / f"{options[0]}.sh"
    subprocess.run(["bash", "-n", str(path)], check=True)


def test_outside_of_a_project(run_cli: Cli, work: Path) -> None:
    result = run_cli("cluster", "slurm")
    assert result.code == 2
    assert "not inside a project" in result.err
