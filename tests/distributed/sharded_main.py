"""What is tried of sharded models: `python sharded_main.py WORLD_SIZE`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import mesh_cases  # noqa: F401
import sharded_cases  # noqa: F401
import torch
from sharded_net import CASES
from trial_net import quiet


def main(world: int, names: list[str]) -> None:
    torch.set_num_threads(1)
    rank = quiet(world).global_rank
    found = {name: CASES[name](world) for name in names or CASES}
    Path(f"{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
