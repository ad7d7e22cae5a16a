"""A callback from single functions, for what is not worth a class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightgen_runtime.callbacks.callback import Callback
from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.nearest import did_you_mean

Hook = Callable[..., Any]


class LambdaCallback(Callback):
    """Call the given functions as hooks.

    Each argument is named as its hook, and the function takes what the hook takes, so
    first the trainer and the module; `setup` and `teardown` also get `stage=`.

    Raises:
        MisconfigurationException: There is no such hook, or no function was given.

    Example:
        >>> callback = LambdaCallback(on_train_end=lambda trainer, module: print("end"))
    """

    def __init__(
        self,
        setup: Hook | None = None,
        teardown: Hook | None = None,
        on_fit_start: Hook | None = None,
        on_fit_end: Hook | None = None,
        on_sanity_check_start: Hook | None = None,
        on_sanity_check_end: Hook | None = None,
        on_train_batch_start: Hook | None = None,
        on_train_batch_end: Hook | None = None,
        on_train_epoch_start: Hook | None = None,
        on_train_epoch_end: Hook | None = None,
        on_validation_epoch_start: Hook | None = None,
        on_validation_epoch_end: Hook | None = None,
        on_test_epoch_start: Hook | None = None,
        on_test_epoch_end: Hook | None = None,
        on_validation_batch_start: Hook | None = None,
        on_validation_batch_end: Hook | None = None,
        on_test_batch_start: Hook | None = None,
        on_test_batch_end: Hook | None = None,
        on_train_start: Hook | None = None,
        on_train_end: Hook | None = None,
        on_validation_start: Hook | None = None,
        on_validation_end: Hook | None = None,
        on_test_start: Hook | None = None,
        on_test_end: Hook | None = None,
        on_exception: Hook | None = None,
        on_save_checkpoint: Hook | None = None,
        on_load_checkpoint: Hook | None = None,
        on_before_backward: Hook | None = None,
        on_after_backward: Hook | None = None,
        on_before_optimizer_step: Hook | None = None,
        on_before_zero_grad: Hook | None = None,
        on_predict_start: Hook | None = None,
        on_predict_end: Hook | None = None,
        on_predict_batch_start: Hook | None = None,
        on_predict_batch_end: Hook | None = None,
        on_predict_epoch_start: Hook | None = None,
        on_predict_epoch_end: Hook | None = None,
        **unknown: Any,
    ) -> None:
        hooks = {name: value for name, value in locals().items() if name != "self"}
        del hooks["unknown"]
        for name in unknown:
            raise MisconfigurationException(
                f"`LambdaCallback({name}=...)`: there is no hook of that name."
                f"{did_you_mean(name, hooks)}"
            )
        for name, function in hooks.items():
            if function is None:
                continue
            if not callable(function):
                raise MisconfigurationException(
                    f"`LambdaCallback({name}={function!r})`: a function is needed"
                )
            setattr(self, name, function)
