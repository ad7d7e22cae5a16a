"""A program that any launcher may start: `python launched_main.py FOLDER [CASES]`.

Each case, by its name, is what a launcher would have set and what the trainer is given.
The process goes through them as if it had been started by each in turn, which saves
starting it as often.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from launched_net import trained

if __name__ == "__main__":
    torch.set_num_threads(1)
    cases = json.loads(sys.argv[2])
    for name, (variables, flags) in cases.items():
        os.environ.update(variables)
        folder = Path(sys.argv[1], name)
        folder.mkdir(exist_ok=True)
        trained(folder, **flags)
        if len(cases) > 1:
            dist.destroy_process_group()
        for each in variables:
            del os.environ[each]
