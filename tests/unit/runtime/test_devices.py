"""Which devices, and so which strategy, the flags of a trainer come to."""

from __future__ import annotations

import importlib
from datetime import timedelta
from typing import Any

import pytest
import torch

from lightgen_runtime import Trainer
from lightgen_runtime.accelerators import choose_devices
from lightgen_runtime.strategies import DDPStrategy, SingleDeviceStrategy
from lightgen_runtime.strategies.launch import own_command
from lightgen_runtime.strategies.ranks import Ranks, ranks_from_environment
from lightgen_runtime.utilities.exceptions import MisconfigurationException


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)


@pytest.mark.parametrize(
    ("devices", "indices"),
    [
        ("auto", [0, 1, 2, 3]),
        (-1, [0, 1, 2, 3]),
        ("-1", [0, 1, 2, 3]),
        (3, [0, 1, 2]),
        ("3", [0, 1, 2]),
        ([1, 3], [1, 3]),
        ((2,), [2]),
        ("0,2", [0, 2]),
        ("2,", [2]),
    ],
)
@pytest.mark.usefixtures("four_gpus")
def test_forms_of_devices(devices: Any, indices: list[int]) -> None:
    found = choose_devices("gpu", devices)
    assert found == [torch.device("cuda", index) for index in indices]


@pytest.mark.parametrize("devices", [5, "0,4", [4], "1.5", "0,0", [True], [], None])
@pytest.mark.usefixtures("four_gpus")
def test_devices_that_are_not_there_are_refused_with_those_that_are(
    devices: Any,
) -> None:
    with pytest.raises(MisconfigurationException, match="4 cuda device"):
        choose_devices("cuda", devices)


@pytest.mark.parametrize(("devices", "processes"), [("auto", 1), (3, 3), ("2", 2)])
def test_number_of_devices_of_a_cpu_is_one_of_processes(
    devices: Any, processes: int
) -> None:
    assert choose_devices("cpu", devices) == [torch.device("cpu")] * processes


def test_auto_takes_as_many_as_have_been_started() -> None:
    assert len(choose_devices("cpu", "auto", processes=3)) == 3


def quiet(**flags: Any) -> Trainer:
    return Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, **flags)


def test_strategy_by_number_of_devices() -> None:
    assert isinstance(quiet().strategy, SingleDeviceStrategy)
    assert isinstance(quiet(devices=2).strategy, DDPStrategy)
    assert isinstance(quiet(strategy="ddp").strategy, DDPStrategy)


def test_trainer_knows_its_processes_before_they_run() -> None:
    trainer = quiet(devices=3)
    assert trainer.world_size == 3
    assert (trainer.global_rank, trainer.local_rank, trainer.node_rank) == (0, 0, 0)
    assert trainer.is_global_zero


def test_ranks_of_a_launcher_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = Ranks(3, 1, 1, 4, 2)
    for name, value in ranks.environment().items():
        monkeypatch.setenv(name, value)
    assert ranks_from_environment() == ranks
    trainer = quiet(devices=2, num_nodes=2)
    assert (trainer.world_size, trainer.global_rank) == (4, 3)
    assert (trainer.node_rank, trainer.local_rank) == (1, 1)
    assert (trainer.num_nodes, trainer.num_devices) == (2, 2)
    assert not trainer.is_global_zero
    with pytest.raises(MisconfigurationException, match=r"2 x 1 = 2 .* 4 have been"):
        quiet(devices="auto")


def test_strategy_takes_options_of_torch_and_names_the_nearest() -> None:
    strategy = DDPStrategy(
        process_group_backend="gloo",
        timeout=timedelta(seconds=5),
        find_unused_parameters=True,
        static_graph=False,
        gradient_as_bucket_view=True,
    )
    assert quiet(devices=2, strategy=strategy).strategy is strategy
    assert strategy.world_size == 2
    with pytest.raises(
        MisconfigurationException, match="mean 'find_unused_parameters'"
    ):
        DDPStrategy(find_unused_parameter=True)


def test_strategies_are_where_lightning_has_them() -> None:
    for path in ("lightgen_runtime.strategies", "lightgen_runtime.pytorch.strategies"):
        module = importlib.import_module(path)
        assert module.DDPStrategy is DDPStrategy
        assert {"DDPStrategy", "SingleDeviceStrategy"} <= set(module.__all__)


def test_own_command_runs_this_program(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setattr(sys, "orig_argv", ["python", "-u", "run.py", "--lr", "1"])
    monkeypatch.setattr(sys, "argv", ["run.py", "--lr", "1"])
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "__file__", "/there/run.py", raising=False)
    assert own_command() == [sys.executable, "-u", "/there/run.py", "--lr", "1"]


def test_interactive_session_is_told_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import sys

    monkeypatch.setattr(sys, "orig_argv", ["python"])
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    with pytest.raises(MisconfigurationException, match="interactive"):
        own_command()
