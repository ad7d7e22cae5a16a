"""Layers whose statistics are those of all processes, and the way back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightgen_runtime.strategies.sync_batchnorm import synced


def network() -> nn.Module:
    torch.manual_seed(0)
    inner = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
    return nn.ModuleDict({"inner": inner, "last": nn.BatchNorm1d(2)})


def test_layers_keep_parameters_and_names() -> None:
    module = network()
    keys = list(module.state_dict())
    parameters = list(module.parameters())
    restore = synced(module)
    kinds = [type(layer) for layer in module.modules()]
    assert kinds.count(nn.SyncBatchNorm) == 3
    assert list(module.state_dict()) == keys
    assert all(a is b for a, b in zip(module.parameters(), parameters, strict=True))
    module["last"].running_mean.fill_(7.0)
    module.double().eval()
    restore()
    assert isinstance(module["last"], nn.BatchNorm1d)
    assert not [each for each in module.modules() if isinstance(each, nn.SyncBatchNorm)]
    assert module["last"].running_mean.tolist() == [7.0, 7.0]
    assert module["last"].running_mean.dtype == torch.float64
    assert not module["last"].training
    assert all(a is b for a, b in zip(module.parameters(), parameters, strict=True))


def test_layers_that_the_user_has_converted_stay() -> None:
    module = nn.Sequential(nn.SyncBatchNorm(3))
    restore = synced(module)
    restore()
    assert isinstance(module[0], nn.SyncBatchNorm)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_one_device_they_compute_as_before() -> None:
    module, images = network().cuda(), torch.randn(4, 3, 5, 5, device="cuda")
    expected = module["inner"](images)
    restore = synced(module)
    torch.testing.assert_close(module["inner"](images), expected)
    restore()
    torch.testing.assert_close(module["inner"](images), expected)
