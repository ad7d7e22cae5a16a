"""`LambdaCallback`."""

from __future__ import annotations

from typing import Any

import pytest
from small_runs import Small, fitted

from lightgen_runtime.callbacks import LambdaCallback
from lightgen_runtime.utilities.exceptions import MisconfigurationException


def test_functions_are_called_as_hooks() -> None:
    seen: list[Any] = []
    callback = LambdaCallback(
        setup=lambda trainer, module, stage: seen.append(stage),
        on_train_batch_end=lambda trainer, module, out, batch, i: seen.append(i),
        on_train_end=lambda trainer, module: seen.append(type(module).__name__),
        on_fit_end=None,
    )
    fitted(Small(), callbacks=[callback])
    assert seen == ["fit", 0, 1, 2, 3, "Small"]


def test_unknown_hook_is_refused_with_the_nearest() -> None:
    with pytest.raises(MisconfigurationException, match="Did you mean 'on_train_end'"):
        LambdaCallback(on_train_ends=print)


def test_something_else_than_a_function_is_refused() -> None:
    with pytest.raises(MisconfigurationException, match="a function is needed"):
        LambdaCallback(on_train_end=3)  # type: ignore[arg-type]
