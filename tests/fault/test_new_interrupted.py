"""Writing a project, killed or refused by the system at every single step."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from striking import FAULTS, run_driver

import lightgen
from lightgen.project.journal import recover, write_files
from lightgen.project.tree import TreeFile

if sys.platform == "win32":
    pytest.skip("needs fork and SIGKILL", allow_module_level=True)

DRIVER = """
import os, sys
from pathlib import Path

from lightgen.project.journal import recover, write_files
from lightgen.project.tree import TreeFile
from striking import Fault, strike_everywhere

NEW = {
    "a.txt": TreeFile(b"new a"),
    "deep/er/b.txt": TreeFile(b"new b"),
    "bin/run": TreeFile(b"#!", executable=True),
}
work, layout, kind, inner = Path(sys.argv[1]), *sys.argv[2:]


def prepare(folder):
    folder.mkdir()
    root = folder / "project"
    if layout == "empty":
        root.mkdir()
    if layout in {"existing", "interrupted"}:
        (root / "deep").mkdir(parents=True)
        (root / "a.txt").write_text("old a")
        (root / "mine.txt").write_text("mine")
        (root / "link").symlink_to("mine.txt")
    if layout == "interrupted":
        # Leave the journal of a write that was killed with some files replaced.
        if os.fork() == 0:
            Fault(root, int(inner), "kill")
            write_files(root, NEW)
            os._exit(0)
        os.wait()
    return root


def act(root):
    if layout == "interrupted":
        recover(root)
    else:
        write_files(root, NEW)


if kind == "kill":
    sys.stderr = open(os.devnull, "w")
print(strike_everywhere(work, kind, prepare, act))
"""

OLD = {
    "a.txt": "old a",
    "deep/": "",
    "link": "-> mine.txt",
    "mine.txt": "mine",
}
NEW = {
    "a.txt": "new a",
    "bin/": "",
    "bin/run": "#!",
    "deep/": "",
    "deep/er/": "",
    "deep/er/b.txt": "new b",
}
BEFORE = {"missing": None, "empty": {}, "existing": OLD}
AFTER = {"missing": NEW, "empty": NEW, "existing": OLD | NEW}


def tree(root: Path) -> dict[str, str] | None:
    if not root.exists():
        return None
    found = {}
    for path in root.rglob("*"):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_dir():
            found[f"{name}/"] = ""
        else:
            found[name] = path.read_text()
    return found


def rerun(root: Path, layout: str) -> None:
    """Do what the user's next command does."""
    files = {
        path: TreeFile(text.encode(), path == "bin/run")
        for path, text in NEW.items()
        if not path.endswith("/")
    }
    recover(root)
    if layout == "existing" or not tree(root):
        write_files(root, files)


def test_kill_leaves_nothing_or_everything(tmp_path: Path) -> None:
    layout = "missing"
    steps = run_driver(DRIVER, tmp_path / "work", layout, "kill", "0")
    assert steps > 10
    seen = []
    for step in range(1, steps + 1):
        root = tmp_path / "work" / str(step) / "project"
        state = tree(root)
        assert state in (BEFORE[layout], AFTER[layout]), f"step {step}"
        seen.append(state == AFTER[layout])
        rerun(root, layout)
        assert tree(root) == AFTER[layout], f"step {step}"
        if not seen[-1]:
            assert [path.name for path in root.parent.iterdir()] == ["project"]
    assert seen == sorted(seen), "once written, it stays"


@pytest.mark.parametrize("layout", ["empty", "existing"])
def test_kill_in_an_existing_folder_is_undone_or_final(
    layout: str, tmp_path: Path
) -> None:
    steps = run_driver(DRIVER, tmp_path / "work", layout, "kill", "0")
    assert steps > 15
    seen = []
    for step in range(1, steps + 1):
        root = tmp_path / "work" / str(step) / "project"
        recover(root)
        state = tree(root)
        assert state in (BEFORE[layout], AFTER[layout]), f"step {step}"
        seen.append(state == AFTER[layout])
        rerun(root, layout)
        assert tree(root) == AFTER[layout], f"step {step}"
    assert seen == sorted(seen), "once written, it stays"
    assert True in seen
    assert False in seen


def test_kill_while_undoing_is_undone_later(tmp_path: Path) -> None:
    total = run_driver(DRIVER, tmp_path / "steps", "existing", "kill", "0")
    longest = 0
    for inner in range(total // 2, total + 1, 2):
        work = tmp_path / f"work-{inner}"
        steps = run_driver(DRIVER, work, "interrupted", "kill", str(inner))
        longest = max(longest, steps)
        for step in range(1, steps + 1):
            root = work / str(step) / "project"
            recover(root)
            assert tree(root) in (OLD, OLD | NEW), f"steps {inner}, {step}"
    assert longest > 5


@pytest.mark.parametrize("layout", ["missing", "empty", "existing"])
@pytest.mark.parametrize("fault", FAULTS)
def test_refusal_leaves_nothing_or_everything(
    layout: str, fault: str, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    steps = run_driver(DRIVER, work, layout, fault, "0")
    assert steps > 10
    refused = 0
    for step in range(1, steps + 1):
        root = work / str(step) / "project"
        outcome, _ = json.loads((work / f"outcome-{step}").read_text())
        state = tree(root)
        if outcome == "done":
            assert {**(state or {}), **AFTER[layout]} == state, f"step {step}"
        else:
            refused += 1
            assert outcome == "WriteError", f"step {step}"
            assert state == BEFORE[layout], f"step {step}"
            beside = [path.name for path in root.parent.iterdir()]
            assert beside == ([] if layout == "missing" else ["project"])
        rerun(root, layout)
        assert tree(root) == AFTER[layout], f"step {step}"
    assert refused > 5


def start_new(work: Path, prelude: str) -> subprocess.CompletedProcess[str]:
    """Run the whole command after `prelude` has prepared its process."""
    command = (
        f"import sys\n{prelude}\nsys.argv[1:] = ['new', 'mymodel', '--no-git', "
        "'--defaults']\nfrom lightgen.cli import main\nmain()\n"
    )
    return subprocess.run(
        [sys.executable, "-c", command],
        cwd=work,
        env=os.environ | {"PYTHONPATH": str(Path(lightgen.__file__).parents[1])},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("step", [1, 10, 30])
def test_killed_new_leaves_nothing_and_a_rerun_succeeds(
    step: int, tmp_path: Path
) -> None:
    prelude = (
        "import os\ncount, fsync = 0, os.fsync\n"
        "def strike(descriptor):\n"
        "    global count\n"
        "    count += 1\n"
        f"    if count == {step}:\n"
        "        os.kill(os.getpid(), 9)\n"
        "    fsync(descriptor)\n"
        "os.fsync = strike\n"
    )
    killed = start_new(tmp_path, prelude)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "mymodel").exists()
    assert start_new(tmp_path, "").returncode == 0
    assert (tmp_path / "mymodel/.lightgen/state.json").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["mymodel"]


def test_full_disk_is_reported_and_leaves_nothing(tmp_path: Path) -> None:
    # A limit on the size of files makes real writes fail in the middle.
    prelude = (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))\n"
    )
    done = start_new(tmp_path, prelude)
    assert done.returncode == 1, done.stderr
    assert "cannot be written: File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
