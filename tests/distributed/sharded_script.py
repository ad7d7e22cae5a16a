"""What two processes do with a sharded module: `python sharded_script.py RANK FOLDER`.

They write checkpoints as folders and read what one process has written; what they find
they leave as JSON. `FOLDER/one` is there before.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.optim import Adam, Optimizer

from lightgen_runtime.io import AsyncCheckpointIO, DistributedCheckpointIO
from lightgen_runtime.io.sharded_folder import FileSystemWriter

WORLD = 2


def net(seed: int) -> nn.Module:
    """Return layers whose rows do not go evenly into two."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 7), nn.BatchNorm1d(7), nn.Linear(7, 1))


def trained(module: nn.Module) -> Optimizer:
    """Take two steps, and return the optimizer."""
    optimizer = Adam(module.parameters(), lr=0.1)
    batch = torch.arange(24.0).view(6, 4) / 24
    for _ in range(2):
        module(batch).pow(2).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return optimizer


def state_of(module: nn.Module, optimizer: Optimizer, rank: int) -> dict[str, Any]:
    return {
        "state_dict": module.state_dict(),
        "optimizer_states": [optimizer.state_dict()],
        "own": torch.tensor(
            rank
        ),  # what each process has of its own: the first's counts
        "epoch": 3 + rank,
    }


def sharded(seed: int) -> nn.Module:
    module = net(seed)
    # By default it would be a GPU's, where there is one.
    fully_shard(module, mesh=init_device_mesh("cpu", (WORLD,)))
    return module


def whole(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: t.full_tensor() if isinstance(t, DTensor) else t.clone()
        for name, t in tensors.items()
    }


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(one[name], other[name]) for name in one
    )


def written(rank: int, folder: Path) -> dict[str, Any]:
    """Write while training goes on, and at once; read both into other modules."""
    module = sharded(0)
    optimizer = trained(module)
    state = state_of(module, optimizer, rank)
    expected = whole(module.state_dict())
    DistributedCheckpointIO().save_checkpoint(state, folder / "sync")
    io = AsyncCheckpointIO(DistributedCheckpointIO())
    for name in ("async_1", "async_2"):
        io.save_checkpoint(state, folder / name)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(1.0)
        for _ in range(50):  # messages of the training, over other connections
            dist.all_reduce(torch.ones(100))
    threads = threading.active_count()
    io.teardown()
    if rank == 0:
        torch.save(expected, folder / "expected.pt")
    found: dict[str, Any] = {"threads": threads - threading.active_count()}
    for name in ("sync", "async_1"):
        other = sharded(1)
        DistributedCheckpointIO().load_into(
            folder / name, {"state_dict": other.state_dict()}
        )
        found[name] = equal(whole(other.state_dict()), expected)
    return found


def read(rank: int, folder: Path) -> dict[str, Any]:
    """Read what one process has written, the optimizer's state included."""
    module, alone = sharded(1), net(0)
    optimizer, optimizer_alone = trained(module), trained(alone)
    state = {
        "state_dict": module.state_dict(),
        "optimizer_states": [optimizer.state_dict()],
    }
    DistributedCheckpointIO().load_into(folder / "one", state)
    averages = [
        equal(whole(one), whole(other))
        for one, other in zip(
            optimizer.state.values(), optimizer_alone.state.values(), strict=True
        )
    ]
    return {
        "weights": equal(whole(module.state_dict()), whole(alone.state_dict())),
        "averages": averages,
    }


def failed(rank: int, folder: Path) -> dict[str, Any]:
    """Write where the second process has no room; then where it finds another error."""
    path = folder / "failed"
    DistributedCheckpointIO().save_checkpoint({"state_dict": {"w": 1}}, path)
    original = FileSystemWriter.write_data
    found: dict[str, Any] = {}
    for error in (
        OSError(28, "No space left on device"),
        RuntimeError("wires crossed"),
    ):

        def fail(*args: Any) -> Any:
            raise error  # noqa: B023

        if rank == 1:
            FileSystemWriter.write_data = fail  # type: ignore[method-assign]
        try:
            DistributedCheckpointIO().save_checkpoint({"state_dict": {"w": 2}}, path)
        except Exception as raised:
            found[type(raised).__name__] = str(raised)
        FileSystemWriter.write_data = original  # type: ignore[method-assign]
    dist.barrier()
    found["kept"] = DistributedCheckpointIO().load_checkpoint(path)["state_dict"]["w"]
    found["files"] = sorted(p.name for p in folder.iterdir() if "failed" in p.name)
    return found


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=WORLD
    )
    cases = {"written": written, "read": read, "failed": failed}
    found = {name: case(rank, folder) for name, case in cases.items()}
    (folder / f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
