"""What precisions are called."""

from __future__ import annotations

from collections.abc import Sequence

from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.nearest import did_you_mean
from lightgen_runtime.utilities.rank_zero import rank_zero_warn

NAMES = ("32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true")
# Source: Lightning's; it discourages those that do not say what 16 bits are used for.
_ALIASES = {"64": "64-true", "32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}
_UNCLEAR = ("16", "bf16")


def full_name(precision: int | str) -> str:
    """Return the name that a value of the `precision` flag stands for.

    Raises:
        MisconfigurationException: It stands for none.
    """
    given = str(precision) if type(precision) is int else precision
    if isinstance(given, str) and given.startswith("transformer-engine"):
        raise MisconfigurationException(
            f"`Trainer(precision={precision!r})`: layers of Transformer Engine belong to "
            "the model. Build the module with them, and use 'bf16-true' or 'bf16-mixed'."
        )
    if not isinstance(given, str) or given not in _ALIASES:
        return one_of(precision, NAMES, "Trainer")
    name = _ALIASES[given]
    if given in _UNCLEAR:
        rank_zero_warn(
            f"`Trainer(precision={precision!r})` stands for {name!r}; write that, since "
            f"there is {given}-true as well"
        )
    return name


def one_of(given: object, accepted: Sequence[str], owner: str) -> str:
    """Return `given` if it is an accepted name.

    Args:
        given: What a user wrote as the argument `precision`.
        accepted: The names.
        owner: The class that it was an argument of.

    Raises:
        MisconfigurationException: It is none of them.
    """
    if isinstance(given, str) and given in accepted:
        return given
    raise MisconfigurationException(
        f"`{owner}(precision={given!r})`: accepted are "
        f"{', '.join(map(repr, accepted))}.{did_you_mean(given, accepted)}"
    )
