"""Steps that are declared in unusual ways: called if they can be, else refused clearly."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_runs import loader, quiet, variant

from lightgen_runtime.utilities.exceptions import MisconfigurationException


def passing_on(function: Any) -> Any:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def wrapped(function: Any) -> Any:
    return functools.wraps(function)(passing_on(function))


def loss(module: Any, batch: Any, *rest: Any) -> Any:
    module.__dict__.setdefault("seen", []).append(rest)
    return module(batch).pow(2).mean()


def plain(self: Any, batch: Any, batch_idx: int) -> Any:
    return loss(self, batch, batch_idx)


def batch_only(self: Any, batch: Any) -> Any:
    return loss(self, batch)


def with_extra(self: Any, batch: Any, batch_idx: int, extra: int = 7) -> Any:
    return loss(self, batch, batch_idx, extra)


CALLED: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "plain": (plain, (0,)),
    "batch only": (batch_only, ()),
    "anything": (lambda self, *args: loss(self, *args), (0,)),
    "a batch and anything": (lambda self, batch, *rest: loss(self, batch, *rest), (0,)),
    "a default": (lambda self, batch, batch_idx=5: loss(self, batch, batch_idx), (0,)),
    "one more with a default": (with_extra, (0, 7)),
    "names and keywords": (
        lambda self, data, i, **more: loss(self, data, i, more),
        (0, {}),
    ),
    "keyword with a default": (lambda self, batch, *, i=3: loss(self, batch, i), (3,)),
    "wrapped": (wrapped(batch_only), ()),
    "wrapped without a trace": (passing_on(plain), (0,)),
    "partial": (functools.partialmethod(with_extra, extra=9), (0, 9)),
}


@pytest.mark.parametrize("form", CALLED)
def test_step_is_called_with_what_it_declares(form: str) -> None:
    step, rest = CALLED[form]
    module = variant(training_step=step)
    quiet(limit_train_batches=1).fit(module, loader())
    assert module.seen == [rest]


def by_name(self: Any, *, batch: Any, batch_idx: int) -> Any:
    return loss(self, batch, batch_idx)


def index_by_name(self: Any, batch: Any, *, batch_idx: int) -> Any:
    return loss(self, batch, batch_idx)


def only_keywords(self: Any, **kwargs: Any) -> Any:
    return loss(self, kwargs["batch"])


def of_iterators(self: Any, dataloader_iter: Any) -> Any:
    return loss(self, next(dataloader_iter)[0])


REFUSED: dict[str, tuple[Callable[..., Any], list[str]]] = {
    "all by name": (by_name, ["batch, batch_idx by name only", "by position"]),
    "index by name": (index_by_name, ["batch_idx by name only"]),
    "only keywords": (only_keywords, ["**kwargs by name only"]),
    "an iterator": (of_iterators, ["dataloader_iter", "was the last", "num_workers"]),
}


@pytest.mark.parametrize("form", REFUSED)
@pytest.mark.parametrize("method", ["fit", "validate", "test", "predict"])
def test_step_that_cannot_be_called_is_refused(method: str, form: str) -> None:
    step, says = REFUSED[form]
    kind = {"fit": "training", "validate": "validation"}.get(method, method)
    module = variant(**{f"{kind}_step": step})
    with pytest.raises(MisconfigurationException) as caught:
        getattr(quiet(), method)(module, loader())
    for part in (f"`{kind}_step", *says, f"{kind}_step(batch, batch_idx"):
        assert part in str(caught.value)


def test_several_loaders_are_told_apart_by_position() -> None:
    seen: list[tuple[int, int]] = []

    def validation_step(self: Any, batch: Any, i: int, number: int) -> None:
        seen.append((i, number))

    quiet().validate(
        variant(validation_step=validation_step),
        [loader(2), loader(4)],
        verbose=False,
    )
    assert seen == [(0, 0), (0, 1), (1, 1)]


def test_step_of_a_static_method() -> None:
    def training_step(batch: Any, batch_idx: int) -> Any:
        return batch.sum() * torch.ones((), requires_grad=True)

    trainer = quiet()
    trainer.fit(variant(training_step=staticmethod(training_step)), loader())
    assert trainer.global_step == 4
