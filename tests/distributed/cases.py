"""What is tried with several processes: `python cases.py WORLD_SIZE`.

Each case runs in every process and returns what that process found, as plain data. With
one process the same cases give what the others are compared with.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import agreement_cases  # noqa: F401
import data_cases  # noqa: F401
import torch
import training_cases  # noqa: F401
from trial_net import CASES, quiet


def main(world: int) -> None:
    torch.set_num_threads(1)
    rank = quiet(world).global_rank
    found = {name: function(world) for name, function in CASES.items()}
    Path(f"{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]))
