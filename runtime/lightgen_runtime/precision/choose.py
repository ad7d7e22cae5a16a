"""From the `precision` flag to a precision."""

from __future__ import annotations

from lightgen_runtime.precision.base import Precision
from lightgen_runtime.precision.double import DoublePrecision
from lightgen_runtime.precision.half import HalfPrecision
from lightgen_runtime.precision.mixed import MixedPrecision
from lightgen_runtime.precision.names import full_name
from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.rank_zero import rank_zero_info, rank_zero_warn


def choose_precision(precision: int | str | None, device_type: str) -> Precision:
    """Return the precision that the flag asks for.

    Args:
        precision: A name such as "bf16-mixed", or one of Lightning's short forms.
        device_type: "cpu", "cuda" or "mps".

    Raises:
        MisconfigurationException: There is none of that name, or not on that device.
    """
    name = "32-true" if precision is None else full_name(precision)
    if name == "64-true" and device_type == "mps":
        raise MisconfigurationException(
            "`Trainer(precision='64-true')`: MPS devices have no 64-bit numbers. Use "
            "accelerator='cpu', or precision='32-true'."
        )
    if name == "16-mixed" and device_type == "cpu":
        rank_zero_warn(
            "`Trainer(precision='16-mixed')` on a CPU: computing in bfloat16 instead, as "
            "with 'bf16-mixed'"
        )
        name = "bf16-mixed"
    match name:
        case "16-mixed" | "bf16-mixed":
            rank_zero_info(f"Computing in mixed precision: {name}")
            return MixedPrecision(name, device_type)
        case "16-true" | "bf16-true":
            return HalfPrecision(name)
        case "64-true":
            return DoublePrecision()
    return Precision()
