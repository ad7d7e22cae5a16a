"""Names that filters written for Lightning refer to."""

from __future__ import annotations

import warnings


class PossibleUserWarning(UserWarning):
    """A warning that may be a false alarm. This runtime issues none of the kind."""


def disable_possible_user_warnings(module: str = "") -> None:
    """Ignore warnings of the class `PossibleUserWarning`.

    Args:
        module: Beginning of the name of the module that issues them; "" for any.
    """
    warnings.filterwarnings("ignore", module=module, category=PossibleUserWarning)
