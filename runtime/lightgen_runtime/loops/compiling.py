"""Running the steps of a module through `torch.compile`, what they log outside of it.

A step is compiled as a whole: its loss and its metrics belong to the graph. `self.log`
does not break that graph, since inside of it the values are collected only; they are
logged when the step is done.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial, wraps
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lightgen_runtime.core.compiled import compiles_with
from lightgen_runtime.strategies.blocks import callable_parts
from lightgen_runtime.strategies.sharded import ShardedStrategy
from lightgen_runtime.utilities.call_site import function_site

if TYPE_CHECKING:
    from lightgen_runtime.core.metrics import LogContext
    from lightgen_runtime.core.module import LightningModule
    from lightgen_runtime.loops.run import Run

Step = Callable[..., Any]


class Compiling:
    """What a run compiles, and how.

    Args:
        compile_: Returns the compiled form of a function.
        module: Whose steps they are.
        parts: What is compiled in place of the steps; None where those are.
    """

    def __init__(
        self,
        compile_: Callable[[Step], Step],
        module: LightningModule,
        parts: list[nn.Module] | None,
    ) -> None:
        self._compile = compile_
        self._module = module
        self._parts = parts
        self._steps: dict[str, Step] = {}
        self._compiled: list[nn.Module] = []
        self._codes: dict[str, CodeType] = {}
        self._open = ExitStack()

    def begin(self) -> None:
        """Compile what is compiled in place; what the user has compiled stays."""
        import torch._dynamo.config as settings

        # `self.global_step` is reached through a module, whose numbers would be constants:
        # each step would be compiled anew.
        self._open.enter_context(settings.patch(allow_unspec_int_on_nn_module=True))
        for part in self._parts or ():
            if part._compiled_call_impl is None and not hasattr(part, "_orig_mod"):
                part._compiled_call_impl = self._call_of(part)
                self._compiled.append(part)

    def end(self) -> None:
        """Leave the module as it was."""
        self._open.close()
        for part in self._compiled:
            part._compiled_call_impl = None
        self._compiled.clear()

    def _call_of(self, part: nn.Module) -> Step:
        """Return what to compile of a part.

        torch compiles the forward that such a call leads to, with the part's hooks around
        it, unless that is of a layer of its own: from `part.compile()` nothing would come.
        """
        own, forward, call = vars(part), part.forward, part._call_impl
        if "forward" in own or forward.__module__.partition(".")[0] != "torch":
            return self._compile(call)

        def computed(*args: Any, **kwargs: Any) -> Any:
            return forward(*args, **kwargs)

        # How often it compiles anew is limited for each code: only parts that are built
        # alike, whose graph is the same, may have one together.
        code = self._codes.setdefault(repr(part), computed.__code__.replace())
        compiled = self._compile(
            FunctionType(code, globals(), closure=computed.__closure__)
        )

        def called(*args: Any, **kwargs: Any) -> Any:
            own["forward"] = compiled
            try:
                return call(*args, **kwargs)  # type: ignore[no-untyped-call]
            finally:
                del own["forward"]

        return called

    def step(self, name: str, method: Step) -> Step:
        """Return what takes the place of a step method of the module."""
        if self._parts is not None:
            return method
        if name not in self._steps:
            self._steps[name] = self._collecting(method)
        return self._steps[name]

    def _collecting(self, method: Step) -> Step:
        compiled, collected, module = self._compile(method), _Collected(), self._module
        site = function_site(method)

        @wraps(method)
        def step(*args: Any) -> Any:
            context: Any = module._log_context
            scope = context.scope
            context.scope = collected
            try:
                output = compiled(*args)
            finally:
                context.scope = scope
                calls = collected.calls[:]
                collected.calls.clear()
            for name, value, batch_size, call in calls:
                value = _as_given(value)
                slot = scope.slots.get(name)
                if slot is None or slot.call != call:
                    slot = scope.open(name, value, call)
                    slot.site = site  # its own line is not running any more
                slot.update(value, batch_size, context)
            return output

        return step


def _as_given(value: Any) -> Any:
    """Return a value that came out of a graph as one to log, which may be kept."""
    if isinstance(value, Tensor):
        # CUDA graphs write the next step's results where this one's are.
        return value.clone() if value.is_cuda else value
    # Inside of a graph, torch makes arrays of numpy's numbers.
    return value.item() if getattr(value, "shape", None) == () else value


class _Collected:
    """Stands in for a `LogScope` inside of a graph."""

    def __init__(self) -> None:
        self.slots: dict[str, Any] = {}  # none ever, so that each call opens one
        self.calls: list[tuple[str, Any, int | None, tuple[Any, ...]]] = []

    def open(self, name: str, value: Any, call: tuple[Any, ...]) -> _CollectedSlot:
        return _CollectedSlot(self.calls, name, call)


class _CollectedSlot:
    def __init__(self, calls: list[Any], name: str, call: tuple[Any, ...]) -> None:
        self._calls = calls
        self._name = name
        self._call = call

    def update(self, value: Any, batch_size: int | None, context: LogContext) -> None:
        """Keep the call. A tensor is copied, which is free inside of a graph.

        It, or what it is a view of, may be changed later in the step.
        """
        enable_graph = self._call[5]
        if isinstance(value, Tensor) and not enable_graph:
            value = value.detach().clone()
        self._calls.append((self._name, value, batch_size, self._call))


def begin_compiling(run: Run, options: dict[str, Any] | None) -> None:
    """Let the run compile, if it is to; called when all layers are there.

    Args:
        run: The run.
        options: Those of the trainer's flag; None without it. A module that went through
            `torch.compile` brings its own.
    """
    compile_ = compiles_with(run.module)
    if compile_ is None and options is not None:
        compile_ = partial(torch.compile, **options)
    if compile_ is None:
        return
    module, strategy = run.module, run.parts.strategy
    parts: list[nn.Module] | None = None
    if isinstance(strategy, ShardedStrategy):
        parts = strategy.blocks(module) or list(callable_parts(module))
    elif not module.automatic_optimization:
        parts = list(callable_parts(module))
    run.compiling = Compiling(compile_, module, parts)
    run.compiling.begin()
