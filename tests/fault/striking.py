"""Strikes a process down, or refuses it something, at every single step of its writing.

A child is forked for each step. An audit hook in it sees every file operation below its
folder before it happens (syncs are counted through a wrapper) and kills the process, or
raises an error, at the chosen one. Nothing reaches a real disk: a killed process leaves
what it wrote to the system.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgen
from lightgen.errors import LightgenError

FAULTS = ["full", str(errno.ENOSPC), str(errno.EACCES), str(errno.EIO)]
_CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.utime"}
_NEEDS_ROOM = {"open", "os.mkdir", "sync"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Fault:
    """Strikes at operation number `at` below `folder`."""

    def __init__(self, folder: Path, at: int, kind: str) -> None:
        self.folder, self.at, self.kind, self.count = str(folder), at, kind, 0
        os.fsync = lambda descriptor: self.see("sync", [])
        sys.addaudithook(self.hook)

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and arguments[2] and arguments[2] & _WRITES
        if writes or event in _CHANGES:
            paths = [str(x) for x in arguments if isinstance(x, (str, os.PathLike))]
            # Removing a whole tree names its entries relative to open folders.
            if any(
                p.startswith(self.folder) or not Path(p).is_absolute() for p in paths
            ):
                self.see(event, paths)

    def see(self, event: str, paths: list[str]) -> None:
        self.count += 1
        if self.kind == "kill" and self.count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        full = self.kind == "full" and self.count >= self.at and event in _NEEDS_ROOM
        once = self.kind.isdigit() and self.count == self.at
        if full or once:
            code = errno.ENOSPC if full else int(self.kind)
            raise OSError(code, os.strerror(code), paths[0] if paths else None)


def strike_everywhere(
    work: Path,
    kind: str,
    prepare: Callable[[Path], Path],
    act: Callable[[Path], object],
    expected: type[Exception] = LightgenError,
    stride: int = 1,
) -> int:
    """Strike an act at every step in turn; return how many steps it has.

    Args:
        work: Gets one folder a step.
        kind: `kill`, `full`, or the number of an error.
        prepare: Makes the project in a folder, and returns it.
        act: What is struck, given the project.
        expected: What the act raises when it is refused something.
        stride: Strike at every so many-th step only.
    """
    at, reached = 1 - stride, True
    while reached:
        at += stride
        root = prepare(work / str(at))
        pid = os.fork()
        if pid == 0:
            try:
                _child(work, root, at, kind, act, expected)
            except BaseException:
                traceback.print_exc()
                os._exit(70)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status == 0:
            reached = json.loads((work / f"outcome-{at}").read_text())[1]
        elif status != -signal.SIGKILL or kind != "kill":
            raise SystemExit(f"step {at} ended with {status}")
    return at - stride


def _child(
    work: Path,
    root: Path,
    at: int,
    kind: str,
    act: Callable[[Path], object],
    expected: type[Exception],
) -> None:
    fault = Fault(root.parent, at, kind)
    try:
        act(root)
        outcome = "done"
    except expected as error:
        outcome = type(error).__name__
    fault.at = sys.maxsize
    (work / f"outcome-{at}").write_text(json.dumps([outcome, fault.count >= at]))


def run_driver(driver: str, work: Path, *arguments: str) -> int:
    """Run a driver, which prints what `strike_everywhere` returns, and return that.

    Args:
        driver: Its source.
        work: A missing folder for it.
        arguments: What it finds in `sys.argv` behind that folder.
    """
    work.mkdir()
    root = Path(lightgen.__file__).parents[1]
    folders = [root, root / "runtime", Path(__file__).parent]
    done = subprocess.run(
        [sys.executable, "-c", driver, str(work), *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, folders))},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout.splitlines()[-1])
