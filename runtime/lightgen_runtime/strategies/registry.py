"""Strategies by name, so that `Trainer(strategy="name")` finds them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from lightgen_runtime.strategies.base import Strategy
from lightgen_runtime.strategies.ddp import DDPStrategy
from lightgen_runtime.strategies.fsdp import FSDPStrategy
from lightgen_runtime.strategies.model_parallel import ModelParallelStrategy
from lightgen_runtime.strategies.single import SingleDeviceStrategy
from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.nearest import did_you_mean

Factory = Callable[..., Strategy]


class _Registry:
    """What makes each strategy, by its name."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[Factory, str]] = {}

    def register(
        self,
        name: str,
        strategy: Factory | None = None,
        description: str | None = None,
        override: bool = False,
        **init_params: Any,
    ) -> Callable[..., Any]:
        """Give a strategy a name; without `strategy`, decorate a class with it.

        Args:
            name: The name.
            strategy: The class, or any function that makes one.
            description: What it is.
            override: Whether the name may be taken already.
            **init_params: Arguments to make it with.

        Raises:
            MisconfigurationException: The name is no string, or is taken.
        """
        if not isinstance(name, str) or not name:
            raise MisconfigurationException(
                f"`StrategyRegistry.register({name!r})`: a name is a string"
            )
        if name in self._entries and not override:
            raise MisconfigurationException(
                f"`StrategyRegistry.register({name!r})`: there is a strategy of that name. "
                "Use another name, or pass override=True."
            )

        def enter(factory: Factory) -> Factory:
            made = partial(factory, **init_params) if init_params else factory
            self._entries[name] = (made, description or "")
            return factory

        return enter if strategy is None else enter(strategy)

    def get(self, name: str, default: Any = None) -> Any:
        """Return a new strategy of that name.

        Args:
            name: The name.
            default: What to return if there is none; without it that is an error.

        Raises:
            MisconfigurationException: There is none.
        """
        if name in self._entries:
            return self._entries[name][0]()
        if default is not None:
            return default
        raise MisconfigurationException(
            f"`StrategyRegistry.get({name!r})`: {self.known(name)}"
        )

    def remove(self, name: str) -> None:
        """Forget a name.

        Raises:
            MisconfigurationException: There is no strategy of that name.
        """
        if name not in self._entries:
            raise MisconfigurationException(
                f"`StrategyRegistry.remove({name!r})`: {self.known(name)}"
            )
        del self._entries[name]

    def available_strategies(self) -> list[str]:
        """Return all names."""
        return list(self._entries)

    def known(self, name: object, *more: str) -> str:
        """Say which names there are, and which is nearest to one that is not."""
        names = [*more, *self._entries]
        return f"there are {', '.join(map(repr, names))}.{did_you_mean(name, names)}"

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __repr__(self) -> str:
        return f"Registered strategies: {', '.join(self._entries)}"


StrategyRegistry = _Registry()
StrategyRegistry.register("single_device", SingleDeviceStrategy)
StrategyRegistry.register("ddp", DDPStrategy)
_STARTED = {"ddp_spawn": "spawn", "ddp_fork": "fork", "ddp_notebook": "fork"}
for _name, _method in _STARTED.items():
    StrategyRegistry.register(_name, DDPStrategy, start_method=_method)
for _name, _method in {"ddp": "popen", **_STARTED}.items():
    for _find in (False, True):
        StrategyRegistry.register(
            f"{_name}_find_unused_parameters_{str(_find).lower()}",
            DDPStrategy,
            find_unused_parameters=_find,
            start_method=_method,
        )
StrategyRegistry.register("fsdp", FSDPStrategy)
StrategyRegistry.register("fsdp_cpu_offload", FSDPStrategy, cpu_offload=True)
StrategyRegistry.register("model_parallel", ModelParallelStrategy)
