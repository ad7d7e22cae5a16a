"""`Trainer(matmul_precision=...)`: how products of 32-bit matrices are computed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from small_runs import Small, assert_says, loader, message_of, quiet, variant

from lightgen_runtime.precision import matmul
from lightgen_runtime.precision.matmul import hint_at_tf32

CUDA = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.fp32_precision = "none"
    torch.backends.mkldnn.matmul.fp32_precision = "none"  # type: ignore[attr-defined]


def settings() -> tuple[str, str]:
    found = torch.backends.mkldnn.matmul.fp32_precision  # type: ignore[attr-defined]
    return torch.backends.cuda.matmul.fp32_precision, found


def seen_by(**flags: Any) -> set[tuple[str, str]]:
    seen: set[tuple[str, str]] = set()

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        seen.add(settings())
        return self(batch).mean()

    quiet(**flags).fit(variant(training_step=training_step), loader())
    return seen


@pytest.mark.parametrize(
    ("flag", "inside"),
    [
        ("highest", ("ieee", "ieee")),
        ("high", ("tf32", "tf32")),
        ("medium", ("tf32", "bf16")),
        (None, ("none", "none")),
    ],
)
def test_products_are_computed_so_while_the_run_lasts(flag: Any, inside: Any) -> None:
    assert seen_by(matmul_precision=flag) == {inside}
    assert settings() == ("none", "none")
    assert torch.get_float32_matmul_precision() == "highest"


def test_settings_of_either_interface_come_back() -> None:
    torch.set_float32_matmul_precision("medium")
    seen_by(matmul_precision="high")
    assert torch.get_float32_matmul_precision() == "medium"
    # Now torch would refuse to read what the older one says.
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    before = settings()
    assert seen_by(matmul_precision="high") == {("tf32", "tf32")}
    assert settings() == before == ("ieee", "bf16")


def test_setting_comes_back_after_an_error() -> None:
    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        raise KeyError("x")

    with pytest.raises(KeyError):
        quiet(matmul_precision="high").fit(
            variant(training_step=training_step), loader()
        )
    assert settings() == ("none", "none")


def test_unknown_name_is_refused_with_the_nearest() -> None:
    message = message_of(quiet, matmul_precision="higher")
    assert_says(message, "matmul_precision='higher'", "'highest', 'high', 'medium'")


@pytest.mark.parametrize(
    ("device", "precision", "capability", "set_to", "hints"),
    [
        (CUDA, "32-true", (9, 0), None, 1),
        (CUDA, "32-true", (7, 5), None, 0),
        (CUDA, "bf16-mixed", (9, 0), None, 0),
        (CUDA, "32-true", (9, 0), "highest", 0),
        (CUDA, "32-true", (9, 0), "high", 0),
        (torch.device("cpu"), "32-true", (9, 0), None, 0),
    ],
)
def test_card_that_could_be_faster_is_hinted_at_once(
    device: torch.device,
    precision: str,
    capability: tuple[int, int],
    set_to: str | None,
    hints: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Card")
    matmul._tell.cache_clear()
    if set_to is not None:
        torch.set_float32_matmul_precision(set_to)
    with caplog.at_level("INFO"):
        hint_at_tf32(device, precision)
        hint_at_tf32(device, precision)
    assert caplog.text.count("`Trainer(matmul_precision='high')`") == hints


def test_module_is_run_without_a_word_on_a_cpu(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level("INFO"):
        quiet().fit(Small(), loader())
    assert "TF32" not in caplog.text
