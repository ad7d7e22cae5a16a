"""Values that tuning finds by name, wherever the user keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.nearest import did_you_mean

if TYPE_CHECKING:
    from lightgen_runtime.core.module import LightningModule


def find_tunable(module: LightningModule, datamodule: Any, names: list[str]) -> str:
    """Return the first of `names` that somebody has.

    Args:
        module: Looked at first, then its `hparams`.
        datamodule: Looked at after that, if there is one, and its `hparams`.
        names: Attributes to look for.

    Raises:
        MisconfigurationException: Nobody has any of them.
    """
    for name in names:
        if _holders(module, datamodule, name):
            return name
    known = [*vars(module), *module.hparams]
    if datamodule is not None:
        known += [*vars(datamodule), *datamodule.hparams]
    raise MisconfigurationException(
        f"tuning looks for an attribute or hyperparameter {' or '.join(map(repr, names))} "
        f"of {type(module).__name__} or its datamodule, and there is none. Set one in "
        f"`__init__` and use it, or name another.{did_you_mean(names[0], known)}"
    )


def get_tunable(module: LightningModule, datamodule: Any, name: str) -> Any:
    """Return a value: the datamodule's, if it has one, goes before the module's."""
    holder = _holders(module, datamodule, name)[-1]
    return holder[name] if isinstance(holder, Mapping) else getattr(holder, name)


def set_tunable(
    module: LightningModule, datamodule: Any, name: str, value: Any
) -> None:
    """Give everybody who has `name` the value."""
    for holder in _holders(module, datamodule, name):
        if isinstance(holder, Mapping):
            holder[name] = value  # type: ignore[index]
        else:
            setattr(holder, name, value)


def _holders(module: LightningModule, datamodule: Any, name: str) -> list[Any]:
    holders: list[Any] = []
    for owner in (module, datamodule):
        if owner is None:
            continue
        if hasattr(owner, name):
            holders.append(owner)
        if name in owner.hparams:
            holders.append(owner.hparams)
    return holders
