"""How fast a run is: batches, samples, items and floating-point operations a second."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lightgen_runtime.utilities.exceptions import MisconfigurationException

# Peak operations a second of one device, without sparsity, in units of 10**12: float32,
# float32 as TF32, 16-bit floats. The first name that occurs in the device's is taken.
# Source: NVIDIA's data sheets.
_TERAFLOPS: dict[str, tuple[float, float, float]] = {
    "H200": (67.0, 494.7, 989.4),
    "H100 PCIe": (51.0, 378.0, 756.0),
    "H100 NVL": (60.0, 417.5, 835.0),
    "H100": (67.0, 494.7, 989.4),
    "A100": (19.5, 156.0, 312.0),
    "L40S": (91.6, 183.0, 362.0),
    "L40": (90.5, 90.5, 181.0),
    "L4": (30.3, 60.0, 121.0),
    "RTX 4090": (82.6, 82.6, 165.2),
    "RTX 3090": (35.6, 35.6, 71.0),
    "V100": (15.7, 15.7, 125.0),
    "T4": (8.1, 8.1, 65.0),
}


class Throughput:
    """Rates over a window of updates, from running totals.

    Args:
        available_flops: Peak operations a second of one device, for the share of it that
            is used (`mfu`).
        world_size: Number of devices. With several, rates of all are reported beside
            those of one.
        window_size: Updates that rates are taken over; at least 2.
        separator: Put between "device" and a rate's name.

    Raises:
        MisconfigurationException: `world_size` or `window_size` is too small.

    Example:
        >>> throughput = Throughput(window_size=2)
        >>> throughput.update(time=1.0, batches=1, samples=8)
        >>> throughput.update(time=1.5, batches=2, samples=16)
        >>> throughput.compute()["device/samples_per_sec"]
        16.0
    """

    def __init__(
        self,
        available_flops: float | None = None,
        world_size: int = 1,
        window_size: int = 100,
        separator: str = "/",
    ) -> None:
        if world_size < 1 or window_size < 2:
            raise MisconfigurationException(
                f"`Throughput(world_size={world_size}, window_size={window_size})`: at "
                "least 1 device and a window of 2 are needed"
            )
        self.available_flops = available_flops
        self.world_size = world_size
        self.separator = separator
        self._window: deque[tuple[float, int, int, int | None]] = deque(
            maxlen=window_size
        )
        self._flops: deque[int] = deque(maxlen=window_size)

    @property
    def elapsed(self) -> float:
        """Seconds at the last update; 0 before the first."""
        return self._window[-1][0] if self._window else 0.0

    def update(
        self,
        *,
        time: float,
        batches: int,
        samples: int,
        lengths: int | None = None,
        flops: int | None = None,
    ) -> None:
        """Take in how far one device has come.

        Args:
            time: Seconds since the start.
            batches: Batches since the start.
            samples: Samples since the start, at least one a batch.
            lengths: Items (tokens, say) since the start, at least one a sample; given in
                each update or in none.
            flops: Floating-point operations since the last update.

        Raises:
            ValueError: A total went backwards or contradicts another.
        """
        if samples < batches or (lengths is not None and lengths < samples):
            raise ValueError(
                f"{batches} batches cannot hold {samples} samples of {lengths} items: each "
                "batch has at least one sample, each sample at least one item"
            )
        if self._window:
            before = self._window[-1]
            if time <= before[0] or batches <= before[1] or samples <= before[2]:
                raise ValueError(
                    f"totals must grow: time, batches and samples were {before[:3]} and "
                    f"are now {(time, batches, samples)}"
                )
            if (lengths is None) != (before[3] is None):
                raise ValueError("`lengths` must be given in each update or in none")
        self._window.append((time, batches, samples, lengths))
        if flops is not None:
            self._flops.append(flops * self.world_size)

    def compute(self) -> dict[str, float]:
        """Return totals, and rates once the window is full.

        Returns:
            time, batches, samples and lengths so far; batches_per_sec, samples_per_sec,
            items_per_sec and flops_per_sec, each with "device/" in front for one device
            and without for several; and device/mfu.
        """
        if not self._window:
            return {}
        (start, *first), (now, *last) = self._window[0], self._window[-1]
        metrics: dict[str, float] = {"time": now}
        rates: dict[str, float] = {}
        full = len(self._window) == self._window.maxlen
        for name, rate, before, after in zip(
            ("batches", "samples", "lengths"),
            ("batches_per_sec", "samples_per_sec", "items_per_sec"),
            first,
            last,
            strict=True,
        ):
            if after is not None and before is not None:
                metrics[name] = after
                if full:
                    rates[rate] = (after - before) / (now - start)
        if len(self._flops) == self._flops.maxlen:
            done = sum(self._flops) - self._flops[0]
            rates["flops_per_sec"] = done / (now - start) / self.world_size
        for name, value in rates.items():
            metrics[f"device{self.separator}{name}"] = value
            if self.world_size > 1:
                metrics[name] = value * self.world_size
        if "flops_per_sec" in rates and self.available_flops:
            share = rates["flops_per_sec"] / self.available_flops
            metrics[f"device{self.separator}mfu"] = share
        return metrics

    def reset(self) -> None:
        """Start again."""
        self._window.clear()
        self._flops.clear()


def measure_flops(
    model: nn.Module,
    forward_fn: Callable[[], Any],
    loss_fn: Callable[[Any], Tensor] | None = None,
) -> int:
    """Count the floating-point operations of a forward pass, and of a backward pass.

    Args:
        model: What computes; on the meta device this costs neither time nor memory.
        forward_fn: Returns the model's output for one batch.
        loss_fn: Returns the loss of an output; None leaves the backward pass out.
    """
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with counter:
        output = forward_fn()
        if loss_fn is not None:
            loss_fn(output).backward()  # type: ignore[no-untyped-call]
    return int(counter.get_total_flops())


def get_available_flops(device: torch.device, dtype: torch.dtype) -> int | None:
    """Return a device's peak floating-point operations a second; None if not known.

    Args:
        device: The device.
        dtype: What is computed in; float32 counts as TF32 where torch may use that.
    """
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    found = next((peaks for key, peaks in _TERAFLOPS.items() if key in name), None)
    if found is None:
        return None
    single, tf32, half = found
    if dtype == torch.float32:
        exact = torch.get_float32_matmul_precision() == "highest"
        return int((single if exact else tf32) * 1e12)
    return int(half * 1e12) if dtype in (torch.float16, torch.bfloat16) else None
