"""Saving and rotating checkpoints, killed or refused by the system at every single step."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from rotating_fit import STRIDE, fit
from striking import FAULTS, run_driver

from lightgen_runtime.io import TorchCheckpointIO
from lightgen_runtime.io.store import newest_valid, read_manifest, reconcile, verify
from lightgen_runtime.utilities.atomic_write import sweep_temporaries

if sys.platform == "win32":
    pytest.skip("needs fork and SIGKILL", allow_module_level=True)

DRIVER = """
import os, sys, warnings
from pathlib import Path

import torch
from lightgen_runtime.io import TorchCheckpointIO
from striking import strike_everywhere

warnings.simplefilter("ignore")
work, kind = Path(sys.argv[1]), sys.argv[2]
io = TorchCheckpointIO()


def checkpoint(step):
    record = {"kept_by": "k", "score": None, "role": "best", "run": "r"}
    return {
        "global_step": step,
        "state_dict": {"w": torch.full((500,), float(step))},
        "optimizer_states": [],
        "lightgen": {"format": 2, "record": record},
    }


def prepare(folder):
    root = folder / "checkpoints"
    for name, step in [("4", 4), ("8", 8), ("last", 8)]:
        io.save_checkpoint(checkpoint(step), root / f"{name}.ckpt")
    return root


def act(root):
    io.save_checkpoint(checkpoint(12), root / "12.ckpt")
    io.remove_checkpoint(root / "4.ckpt")
    io.save_checkpoint(checkpoint(12), root / "last.ckpt")


print(strike_everywhere(work, kind, prepare, act, OSError))
"""


def step_in(path: Path) -> int:
    """Load a checkpoint and see that its weights are those of its step."""
    content = TorchCheckpointIO().load_checkpoint(path)
    step: int = content["global_step"]
    assert torch.equal(content["state_dict"]["w"], torch.full((500,), float(step)))
    return step


@pytest.mark.parametrize("fault", ["kill", *FAULTS])
def test_what_was_saved_stays_and_the_next_save_works(
    fault: str, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    steps = run_driver(DRIVER, work, fault)
    assert steps > 30
    newest = []
    for at in range(1, steps + 1):
        root = work / str(at) / "checkpoints"
        found = {path.stem: step_in(path) for path in root.glob("*.ckpt")}
        assert found.pop("last") in (8, 12), f"step {at}"
        assert {"8"} <= found.keys() <= {"4", "8", "12"}, f"step {at}"
        assert all(int(name) == step for name, step in found.items())
        assert "12" in found or "4" in found, f"step {at}: removed before it was saved"
        newest.append(step_in(Path(str(newest_valid(root)))))
        # The next fit.
        # A lock whose removal was refused is taken over by the next who needs it.
        left = {path.name for path in root.glob(".*")}
        assert fault == "kill" or left <= {".manifest.lock"}
        sweep_temporaries(root)
        assert not list(root.glob(".*"))
        listed = reconcile(root)
        assert listed == read_manifest(root)
        assert set(listed) == {path.name for path in root.glob("*.ckpt")}
        assert all(verify(path) is None for path in root.glob("*.ckpt")), f"step {at}"
        assert all(entry["run"] == "r" for entry in listed.values())
        content = {"global_step": 16, "state_dict": {}, "optimizer_states": []}
        TorchCheckpointIO().save_checkpoint(content, root / "16.ckpt")
        assert newest_valid(root) == str(root / "16.ckpt")
        assert not list(root.glob(".*")), f"step {at}"
    assert set(newest) == {8, 12}
    if fault == "kill":
        assert newest == sorted(newest), "once written, it stays"


FIT = """
import os, sys, warnings
from pathlib import Path

from rotating_fit import fit
from striking import strike_everywhere

warnings.simplefilter("ignore")
sys.stderr = open(os.devnull, "w")


def prepare(folder):
    (folder / "checkpoints").mkdir(parents=True)
    return folder / "checkpoints"


print(strike_everywhere(Path(sys.argv[1]), "kill", prepare, fit, stride=int(sys.argv[2])))
"""


def test_fit_killed_at_a_save_keeps_the_same_files_once_resumed(
    tmp_path: Path,
) -> None:
    fit(tmp_path / "whole")
    kept = json.loads((tmp_path / "whole/manifest.json").read_text())["checkpoints"]
    assert sorted(kept) == ["epoch=1-step=4.ckpt", "epoch=3-step=8.ckpt", "last.ckpt"]
    work = tmp_path / "fits"
    steps = run_driver(FIT, work, str(STRIDE))
    assert steps > 100
    for at in range(1, steps + 1, STRIDE):
        root = work / str(at) / "checkpoints"
        source = newest_valid(root)
        callback = fit(root, source)
        found = {path.name for path in root.iterdir()}
        # What a fit goes on from stays, whatever else is kept.
        beside = {Path(source).name} if source else set()
        assert found - beside == {*kept, "manifest.json"} - beside, f"step {at}"
        assert set(read_manifest(root)) == found - {"manifest.json"}, f"step {at}"
        scores = {Path(p).name: float(s) for p, s in callback.best_k_models.items()}
        assert scores == {
            "epoch=1-step=4.ckpt": 1.0,
            "epoch=3-step=8.ckpt": 0.5,
        }, f"step {at}"
        assert callback.last_model_path == str(root / "last.ckpt")
