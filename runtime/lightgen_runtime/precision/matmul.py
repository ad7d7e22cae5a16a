"""How exactly products of matrices of 32 bits are computed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.nearest import did_you_mean
from lightgen_runtime.utilities.rank_zero import rank_zero_info

MATMUL_PRECISIONS = ("highest", "high", "medium")
# Source: NVIDIA's Ampere is the first generation that computes TF32.
_WITH_TF32 = (8, 0)


def check_matmul_precision(value: object) -> None:
    """Refuse what `Trainer(matmul_precision=...)` does not accept.

    Raises:
        MisconfigurationException: It is no name of torch's.
    """
    if value is not None and value not in MATMUL_PRECISIONS:
        raise MisconfigurationException(
            f"`Trainer(matmul_precision={value!r})`: accepted are "
            f"{', '.join(map(repr, MATMUL_PRECISIONS))} and None."
            f"{did_you_mean(value, MATMUL_PRECISIONS)}"
        )


@contextmanager
def computing_products(value: str | None) -> Iterator[None]:
    """Compute products of 32-bit matrices like this inside, and as before afterwards.

    Args:
        value: As in `torch.set_float32_matmul_precision`; None changes nothing.
    """
    if value is None:
        yield
        return
    former = _of_old_interface()
    on_cpu: Any = torch.backends.mkldnn
    backends = (torch.backends.cuda.matmul, on_cpu.matmul)
    formers = [backend.fp32_precision for backend in backends]
    torch.set_float32_matmul_precision(value)
    try:
        yield
    finally:
        if former is not None:
            torch.set_float32_matmul_precision(former)
        for backend, one in zip(backends, formers, strict=True):
            backend.fp32_precision = one


def hint_at_tf32(device: torch.device, precision: str) -> None:
    """Say once that a card could compute faster, where nobody has said how it is to.

    Args:
        device: The run's.
        precision: The run's.
    """
    if device.type != "cuda" or precision != "32-true":
        return
    unset = torch.backends.cuda.matmul.fp32_precision == "none"
    if unset and torch.cuda.get_device_capability(device) >= _WITH_TF32:
        _tell(torch.cuda.get_device_name(device))


def _of_old_interface() -> str | None:
    """Return torch's setting; None where somebody used the newer interface."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # torch refuses to put the two together
        return None


@cache
def _tell(card: str) -> None:
    rank_zero_info(
        f"{card} computes products of 32-bit matrices several times faster as TF32, with "
        "10 bits after the point in place of 23: `Trainer(matmul_precision='high')`. "
        "'highest' keeps all of them, without this line."
    )
