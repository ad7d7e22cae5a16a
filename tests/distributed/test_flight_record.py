"""What NCCL's flight recorder holds is read as gloo's is; the faults are tried with gloo."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from processes import program

CALLS = """
import time
import torch
import torch.distributed as dist
from lightgen_runtime.strategies import flight_record

store = dist.TCPStore("127.0.0.1", 0, 1, True)
dist.init_process_group(
    "nccl", rank=0, world_size=1, store=store, device_id=torch.device("cuda:0")
)
dist.all_reduce(torch.ones(5, device="cuda"))
dist.broadcast_object_list([1], 0)
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(3, 2).cuda())
model(torch.ones(2, 3, device="cuda")).sum().backward()
torch.cuda.synchronize()
time.sleep(2)  # until torch's own thread has seen the ends
calls = flight_record.calls(True, 100)
assert [call.number for call in calls] == list(range(1, len(calls) + 1)), calls
assert calls[0].name == "all_reduce" and calls[0].content == "of 5 Float", calls
assert calls[-1].name == "all_reduce" and calls[-1].content == "of 8 Float", calls
assert flight_record.position(True) == (len(calls), len(calls))
said = flight_record.described(True, 1, "")
assert said.startswith("`all_reduce` at <string>:11 "), said
said = flight_record.described(True, len(calls), "model.py:3")
assert said == "gradients of `training_step` at model.py:3 (all_reduce of 8 Float)", said
"""


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_record_of_nccl(tmp_path: Path) -> None:
    done = program("-c", CALLS, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
