"""Strategies by name, and which parts of a model are sharded by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from torch import nn

from lightgen_runtime import Trainer
from lightgen_runtime.callbacks import WeightAveraging
from lightgen_runtime.strategies import (
    DDPStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
    SingleDeviceStrategy,
    StrategyRegistry,
)
from lightgen_runtime.strategies.blocks import blocks_of_classes, repeated_blocks
from lightgen_runtime.strategies.named import UNCALLED
from lightgen_runtime.utilities.exceptions import MisconfigurationException


@pytest.fixture
def registered() -> Iterator[str]:
    StrategyRegistry.register("mine", DDPStrategy, static_graph=True)
    yield "mine"
    StrategyRegistry.remove("mine")


def quiet(**flags: Any) -> Trainer:
    return Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, **flags)


def test_registered_name_is_a_strategy(registered: str) -> None:
    assert registered in StrategyRegistry.available_strategies()
    one, other = (quiet(strategy=registered, devices=2).strategy for _ in range(2))
    assert isinstance(one, DDPStrategy)
    assert one is not other
    assert one.world_size == 2
    assert StrategyRegistry.get(registered)._options == {"static_graph": True}


def test_capitals_in_a_name_do_not_matter() -> None:
    assert isinstance(quiet(strategy="DDP", devices=2).strategy, DDPStrategy)


@pytest.mark.parametrize("name", ["configure_ddp", "setup", "optimizer_step"])
def test_method_that_only_lightning_calls_is_refused(name: str) -> None:
    own = type("Own", (DDPStrategy,), {name: lambda self, *args: None})
    with pytest.raises(
        MisconfigurationException, match=f"an? Own has a method `{name}`"
    ):
        quiet(strategy=own(), devices=2)


def test_no_strategy_here_has_a_method_that_nothing_calls() -> None:
    for strategy in (DDPStrategy, FSDPStrategy, ModelParallelStrategy):
        assert not [name for name in UNCALLED if hasattr(strategy, name)]


def test_class_is_registered_by_decorating_it() -> None:
    @StrategyRegistry.register("decorated", description="as an example")
    class Decorated(SingleDeviceStrategy):
        pass

    try:
        assert isinstance(quiet(strategy="decorated").strategy, Decorated)
    finally:
        StrategyRegistry.remove("decorated")
    assert "decorated" not in StrategyRegistry


def test_taken_name_is_replaced_on_demand_only(registered: str) -> None:
    with pytest.raises(MisconfigurationException, match="override=True"):
        StrategyRegistry.register(registered, DDPStrategy)
    StrategyRegistry.register(registered, SingleDeviceStrategy, override=True)
    assert isinstance(StrategyRegistry.get(registered), SingleDeviceStrategy)


def test_unknown_name_gets_the_list_and_the_nearest() -> None:
    assert StrategyRegistry.get("model_paralel", "else") == "else"
    for ask in (
        StrategyRegistry.get,
        StrategyRegistry.remove,
        lambda name: quiet(strategy=name),
    ):
        with pytest.raises(MisconfigurationException) as caught:
            ask("model_paralel")
        for text in ("'model_paralel'", "'ddp'", "Did you mean 'model_parallel'"):
            assert text in str(caught.value)


def test_what_makes_no_strategy_is_refused() -> None:
    StrategyRegistry.register("wrong", dict)
    try:
        with pytest.raises(MisconfigurationException, match="made a dict"):
            quiet(strategy="wrong")
    finally:
        StrategyRegistry.remove("wrong")


def test_names_that_come_with_it() -> None:
    assert isinstance(quiet(strategy="fsdp").strategy, FSDPStrategy)
    assert isinstance(quiet(strategy="fsdp_cpu_offload").strategy, FSDPStrategy)
    strategy = quiet(strategy="model_parallel", devices=2).strategy
    assert isinstance(strategy, ModelParallelStrategy)
    assert (strategy.data_world_size, strategy.data_rank) == (1, 0)


@pytest.mark.parametrize(
    ("make", "texts"),
    [
        (
            lambda: FSDPStrategy(sharding_strategy="SHARD_GRAD_OP"),
            ["sharding_strategy", "reshard_after_forward=False"],
        ),
        (lambda: FSDPStrategy(backward_prefetch=1), ["backward_prefetch"]),
        (lambda: FSDPStrategy(auto_wrap_policy={1}), ["{1}", "module classes"]),
        (lambda: FSDPStrategy(state_dict_type="half"), ["'half'", "'sharded'"]),
        (lambda: FSDPStrategy(mixed_precision="bf16"), ["MixedPrecisionPolicy"]),
        (lambda: FSDPStrategy(cpu_offload=1), ["cpu_offload=1", "a bool"]),
        (lambda: ModelParallelStrategy(0), ["data_parallel_size=0", "at least 1"]),
        (
            lambda: quiet(strategy="fsdp", callbacks=[WeightAveraging()]),
            ["WeightAveraging with FSDPStrategy", "'ddp'"],
        ),
        (
            lambda: quiet(devices=3, strategy=ModelParallelStrategy(2)),
            ["data_parallel_size=2", "3 process(es)", "'auto'"],
        ),
    ],
)
def test_wrong_argument(make: Any, texts: list[str]) -> None:
    with pytest.raises(MisconfigurationException) as caught:
        make()
    for text in texts:
        assert text in str(caught.value)


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))


class Tower(nn.Module):
    """Layers in lists of lists, something used once, and mere activations."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(nn.ModuleList([Layer(), Layer()]) for _ in range(2))
        self.once = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.ReLU())
        self.head = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 1))


def test_blocks_are_the_outermost_repeated_layers() -> None:
    tower = Tower()
    layers = [layer for stage in tower.stages for layer in stage]  # type: ignore[union-attr]
    assert repeated_blocks(tower) == [*layers, tower.head[0], tower.head[2]]


def test_block_with_a_tied_weight_is_left_out() -> None:
    tower = Tower()
    tower.head[2].weight = tower.stages[0][1].inner[0].weight  # type: ignore[index,union-attr]
    blocks = repeated_blocks(tower)
    assert tower.stages[0][1] not in blocks  # type: ignore[index]
    assert tower.head[2] not in blocks
    assert len(blocks) == 4


def test_blocks_by_class_come_inner_ones_first() -> None:
    tower = Tower()
    blocks = blocks_of_classes(tower, {Layer, nn.Sequential})
    assert len(blocks) == 4 + 6
    assert blocks.index(tower.stages[0][0].inner) < blocks.index(tower.stages[0][0])  # type: ignore[index,union-attr]
    with pytest.raises(MisconfigurationException, match=r"names Conv2d.*Layer, Linear"):
        blocks_of_classes(tower, {nn.Conv2d})
