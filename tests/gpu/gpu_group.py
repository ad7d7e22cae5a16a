"""Fits in a process group of nccl, in the one process that torchrun has started.

    RANK=0 LOCAL_RANK=0 WORLD_SIZE=1 ... python gpu_group.py

Prints one JSON object: for each strategy the largest difference of its weights from those of a
fit without any.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import torch
import torch.distributed as dist
from gpu_runs import Classifier, loader, quiet


def weights(**flags: Any) -> dict[str, torch.Tensor]:
    """Fit and return the weights, as a checkpoint would hold them."""
    torch.manual_seed(0)
    trainer = quiet(max_epochs=2, gradient_clip_val=1.0, **flags)
    module = Classifier()
    trainer.fit(module, loader(pin_memory=True), loader())
    return {
        k: v.cpu() for k, v in trainer.strategy.gathered(module.state_dict()).items()
    }


def difference(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    return max((ours[name] - theirs[name]).abs().max().item() for name in theirs)


def main() -> None:
    """Fit with each strategy and print what differs."""
    alone = weights(strategy="single_device")
    found: dict[str, Any] = {}
    for name in ("ddp", "fsdp"):
        found[name] = difference(weights(strategy=name), alone)
    found["ddp compiled"] = difference(
        weights(strategy="ddp", compile={"backend": "aot_eager"}), alone
    )
    found["fsdp compiled"] = difference(
        weights(strategy="fsdp", compile={"backend": "aot_eager"}), alone
    )
    found["backend"] = dist.get_backend()
    found["device"] = os.environ["LOCAL_RANK"]
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
