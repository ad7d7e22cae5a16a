"""Every hook of the programming model, and who listens to it in one run.

`HOOKS` is the single list: names, arguments, log rules and lifecycle order all derive
from it. `HookTable.resolve` turns it into slots once per run, after `setup` and before
`on_fit_start`: a slot is `None` unless somebody really overrides the hook, so that an
un-overridden hook costs the loop one attribute read. A hook attached later (a callback
added in mid-epoch, say) takes effect at the next epoch, when the table is resolved again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from inspect import unwrap
from typing import TYPE_CHECKING, Any, NamedTuple

from lightgen_runtime.core.metrics import FORBIDDEN, LogContext, LogRule, LogScope

if TYPE_CHECKING:
    from lightgen_runtime.core.metrics import MetricStore

PER_STEP = LogRule(on_step=True, on_epoch=False)
PER_BATCH = LogRule(on_step=False, on_epoch=True)
PER_EPOCH = LogRule(on_step=False, on_epoch=True, step_allowed=False)


class Hook(NamedTuple):
    """One hook: what it is called, who may own it, and when it runs.

    Attributes:
        name: Method name, the same on callbacks and modules.
        owners: Which of "callback" and "module" have it.
        store: The metric store that `self.log` fills from here: "train", "validate",
            "test", or "" where logging is forbidden.
        rule: Defaults and limits of `self.log` inside the hook.
        where: The moment in the lifecycle, in words.
    """

    name: str
    owners: tuple[str, ...]
    store: str
    rule: LogRule
    where: str


BOTH = ("callback", "module")


def _evaluation_hooks(stage: str, prefix: str) -> list[Hook]:
    quiet = FORBIDDEN if stage == "predict" else None
    store = "" if stage == "predict" else stage
    batch, epoch = quiet or PER_BATCH, quiet or PER_EPOCH
    module = ("module",)
    hooks = [
        Hook(f"on_{prefix}_model_eval", module, "", FORBIDDEN, "before evaluating"),
        Hook(f"on_{prefix}_start", BOTH, store, epoch, "evaluation begins"),
        Hook(f"on_{prefix}_epoch_start", BOTH, store, epoch, "its epoch begins"),
        Hook(f"on_{prefix}_batch_start", BOTH, store, batch, "before each step"),
        Hook(f"on_{prefix}_batch_end", BOTH, store, batch, "after each step"),
        Hook(f"on_{prefix}_epoch_end", BOTH, store, epoch, "all batches seen"),
        Hook(f"on_{prefix}_end", BOTH, "", FORBIDDEN, "metrics are reduced"),
    ]
    if stage != "predict":
        hooks.append(
            Hook(f"on_{prefix}_model_train", module, "", FORBIDDEN, "after evaluating")
        )
    return hooks


# In the order in which a fit meets them; validation and the other stages follow.
HOOKS: tuple[Hook, ...] = (
    Hook("on_fit_start", BOTH, "", FORBIDDEN, "model on its device, before any batch"),
    Hook("on_sanity_check_start", ("callback",), "", FORBIDDEN, "before sanity check"),
    Hook("on_sanity_check_end", ("callback",), "", FORBIDDEN, "after sanity check"),
    Hook("on_train_start", BOTH, "train", PER_EPOCH, "before the first epoch"),
    Hook("on_train_epoch_start", BOTH, "train", PER_EPOCH, "before an epoch's batches"),
    Hook("on_train_batch_start", BOTH, "train", PER_STEP, "-1 ends the epoch"),
    Hook("on_before_zero_grad", BOTH, "train", PER_STEP, "a window's first batch"),
    Hook("on_before_backward", BOTH, "train", PER_STEP, "loss computed and divided"),
    Hook("on_after_backward", BOTH, "train", PER_STEP, "gradients are there"),
    Hook("on_before_optimizer_step", BOTH, "train", PER_STEP, "before clipping"),
    Hook("on_train_batch_end", BOTH, "train", PER_STEP, "schedulers have stepped"),
    Hook(
        "on_validation_model_zero_grad", ("module",), "", FORBIDDEN, "a window closed"
    ),
    *_evaluation_hooks("validate", "validation"),
    Hook("on_train_epoch_end", BOTH, "train", PER_EPOCH, "after an epoch's batches"),
    Hook("on_train_end", BOTH, "", FORBIDDEN, "after the last epoch"),
    Hook("on_fit_end", BOTH, "", FORBIDDEN, "resources are released"),
    *_evaluation_hooks("test", "test"),
    *_evaluation_hooks("predict", "predict"),
)

STEP_RULES: dict[str, tuple[str, LogRule]] = {
    "training_step": ("train", PER_STEP),
    "optimizer_step": ("train", PER_STEP),
    "optimizer_zero_grad": ("train", PER_STEP),
    "backward": ("train", PER_STEP),
    "configure_gradient_clipping": ("train", PER_STEP),
    "lr_scheduler_step": ("train", PER_STEP),
    "validation_step": ("validate", PER_BATCH),
    "test_step": ("test", PER_BATCH),
    "predict_step": ("", FORBIDDEN),
}


def is_overridden(name: str, instance: object, base: type) -> bool:
    """Tell whether `instance` brings its own `name`, by class or by instance attribute."""
    if name in getattr(instance, "__dict__", {}):
        return True
    own = getattr(type(instance), name, None)
    return own is not None and own is not getattr(base, name, None)


class Listeners:
    """The bound callables of one hook, in calling order."""

    __slots__ = ("callbacks", "module", "scope", "watchers")

    def __init__(
        self,
        callbacks: tuple[Callable[..., Any], ...],
        module: Callable[..., Any] | None,
        watchers: tuple[Callable[..., Any], ...],
        scope: LogScope,
    ) -> None:
        self.callbacks = callbacks
        self.module = module
        self.watchers = watchers
        self.scope = scope


class HookTable:
    """One slot a hook: `None`, or its `Listeners`.

    `fire` tells `self.log` which hook is running, then calls callbacks (in the user's
    order) and the module. `fire_watchers` follows it where there are any: callbacks that
    judge an epoch's result, which must see what the module logged in `on_train_epoch_end`.
    """

    __slots__ = ("_args", "_context", *(hook.name for hook in HOOKS))

    if TYPE_CHECKING:  # the slots are made from the registry, which no checker sees

        def __getattr__(self, name: str) -> Listeners | None: ...

    def __init__(self, trainer: Any, module: Any, context: LogContext) -> None:
        self._args = (trainer, module)
        self._context = context
        for hook in HOOKS:
            setattr(self, hook.name, None)

    def resolve(
        self,
        callbacks: Iterable[Any],
        callback_base: type,
        module_base: type,
        stores: dict[str, MetricStore],
        is_watcher: Callable[[Any], bool],
        measured: Callable[[str, Callable[..., Any]], Callable[..., Any]],
    ) -> None:
        """Find who listens to what, now.

        Args:
            callbacks: In calling order.
            callback_base: Methods found unchanged on it are nobody's.
            module_base: The same for the module.
            stores: Metric stores by stage.
            is_watcher: Whether a callback's `on_train_epoch_end` runs after the module's.
            measured: Returns what is called in place of a named action's function.
        """
        callbacks = list(callbacks)
        module = self._args[1]
        for hook in HOOKS:
            first: list[Callable[..., Any]] = []
            last: list[Callable[..., Any]] = []
            if "callback" in hook.owners:
                for callback in callbacks:
                    if is_overridden(hook.name, callback, callback_base):
                        late = hook.name == "on_train_epoch_end" and is_watcher(
                            callback
                        )
                        action = f"[Callback]{callback.state_key}.{hook.name}"
                        listener = measured(action, getattr(callback, hook.name))
                        (last if late else first).append(listener)
            own = None
            if "module" in hook.owners and is_overridden(
                hook.name, module, module_base
            ):
                action = f"[LightningModule]{type(module).__name__}.{hook.name}"
                own = measured(action, getattr(module, hook.name))
            listeners = None
            if first or own or last:
                scope = stores[hook.store].scope(hook.name, hook.rule)
                listeners = Listeners(tuple(first), own, tuple(last), scope)
            setattr(self, hook.name, listeners)

    def fire(self, listeners: Listeners | None, *args: Any) -> None:
        """Call everybody who listens; nobody is fine.

        Cost: one Python call of ours, and one for each listener.
        """
        if listeners is None:
            return
        self._context.scope = listeners.scope
        for callback in listeners.callbacks:
            callback(*self._args, *args)
        if listeners.module is not None:
            listeners.module(*args)

    def fire_watchers(self, listeners: Listeners | None) -> None:
        """Call those that judge what `fire` has brought about."""
        for watcher in () if listeners is None else listeners.watchers:
            watcher(*self._args)

    def ask(self, listeners: Listeners, *args: Any) -> bool:
        """Call everybody and tell whether the module answered -1 (skip what follows)."""
        self._context.scope = listeners.scope
        for callback in listeners.callbacks:
            callback(*self._args, *args)
        answer = None if listeners.module is None else listeners.module(*args)
        return isinstance(answer, int) and answer == -1

    def describe(self) -> Iterator[tuple[Hook, list[str]]]:
        """Yield each hook in lifecycle order with the names of its listeners."""
        for hook in HOOKS:
            listeners: Listeners | None = getattr(self, hook.name)
            found = []
            if listeners is not None:
                own = (listeners.module,) if listeners.module else ()
                for function in (*listeners.callbacks, *own, *listeners.watchers):
                    owner = getattr(unwrap(function), "__self__", None)
                    found.append(
                        getattr(function, "__qualname__", repr(function))
                        if owner is None
                        else type(owner).__name__
                    )
            yield hook, found
