"""Which devices, and so which strategy, the flags of a trainer come to."""

from __future__ import annotations

import importlib
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_runs import Small, assert_says, loader, message_of
from small_runs import quiet as small_trainer

from lightgen_runtime import Trainer
from lightgen_runtime.accelerators import (
    Accelerator,
    CPUAccelerator,
    CUDAAccelerator,
    choose_devices,
)
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


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)


@pytest.mark.parametrize("devices", ["auto", -1, 3, "3"])
@pytest.mark.usefixtures("one_gpu")
def test_launcher_may_give_each_process_one_card(devices: Any) -> None:
    """As `srun --gpus-per-task=1` does: to each it is number 0."""
    found = choose_devices("gpu", devices, processes=3)
    assert found == [torch.device("cuda", 0)] * 3


@pytest.mark.parametrize(
    ("devices", "processes"), [(3, None), (2, 3), ([0, 1, 2], 3), ([1], 3)]
)
@pytest.mark.usefixtures("one_gpu")
def test_one_card_is_one(devices: Any, processes: int | None) -> None:
    with pytest.raises(MisconfigurationException, match="1 cuda device"):
        choose_devices("gpu", devices, processes)


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


# ---- objects, and what is said of what is not there ----


class Own(Accelerator):
    """A kind of device that writes down what it is asked."""

    def __init__(self, there: bool = True) -> None:
        self.there = there
        self.calls: list[str] = []

    @staticmethod
    def name() -> str:
        return "own"

    def is_available(self) -> bool:  # type: ignore[override]
        return self.there

    @staticmethod
    def auto_device_count() -> int:
        return 1

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        return [torch.device("cpu")] * (devices if isinstance(devices, int) else 0)

    def setup_device(self, device: torch.device) -> None:
        self.calls.append(f"setup_device {device}")

    def setup(self, trainer: Trainer) -> None:
        self.calls.append(f"setup {trainer.state.fn}")

    def teardown(self) -> None:
        self.calls.append("teardown")

    def get_device_stats(self, device: torch.device) -> dict[str, Any]:
        return {}


def test_accelerator_may_be_an_object() -> None:
    flags: dict[str, Any] = {"logger": False, "enable_checkpointing": False}
    cpu = CPUAccelerator()
    trainer = Trainer(accelerator=cpu, devices=2, **flags)
    assert trainer.accelerator is cpu
    assert isinstance(trainer.strategy, DDPStrategy)
    assert isinstance(quiet().accelerator, CPUAccelerator)


@pytest.mark.usefixtures("four_gpus")
def test_object_for_cuda_takes_devices_as_its_name_does() -> None:
    assert choose_devices(CUDAAccelerator(), "1,") == [torch.device("cuda", 1)]


def test_own_accelerator_is_asked_and_told() -> None:
    own = Own()
    trainer = small_trainer(accelerator=own)
    trainer.fit(Small(), loader())
    assert trainer.accelerator is own
    assert own.calls == ["setup_device cpu", "setup fit", "teardown"]


@pytest.mark.parametrize(
    ("accelerator", "devices", "parts"),
    [
        (Own(there=False), "auto", ["Own())`", "`is_available`", "a CPU"]),
        (Own(), [0], ["`get_parallel_devices([0])` returned []"]),
        (CPUAccelerator, 1, ["Make an instance: CPUAccelerator()."]),
        ("cudda", 1, ["mean 'cuda'", "This machine has a CPU."]),
        ("gpu", 1, ["this machine has a CPU", "accelerator='auto'"]),
    ],
)
def test_accelerator_that_cannot_be_is_refused(
    accelerator: Any, devices: Any, parts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert_says(message_of(choose_devices, accelerator, devices), *parts)


@pytest.mark.parametrize(
    ("built_with", "visible", "said"),
    [
        (None, None, "installed without support for GPUs"),
        ("13.0", "", "CUDA_VISIBLE_DEVICES=''"),
        ("13.0", None, "`nvidia-smi`"),
    ],
)
def test_missing_card_is_explained(
    built_with: str | None,
    visible: str | None,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", built_with)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert said in message_of(choose_devices, "cuda", 1)


@pytest.mark.usefixtures("four_gpus")
def test_cards_are_named_with_their_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def properties(index: int) -> Any:
        return SimpleNamespace(name="Card A" if index else "Card B", total_memory=2**34)

    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    message = message_of(choose_devices, "cuda", 5)
    assert_says(message, "1 cuda device(s) Card B of 16 GiB", "3 cuda device(s) Card A")
