"""Importing packages that only some features need."""

import importlib
from types import ModuleType

from lightgen_runtime.utilities.exceptions import MissingDependencyError


def import_extra(module: str, *, install: str, used_by: str) -> ModuleType:
    """Import `module`, or say which command installs it.

    Args:
        module: Dotted name, e.g. `sklearn.datasets`.
        install: The exact command to run, e.g. `pip install scikit-learn`.
        used_by: What needs the package, as the subject of the message.

    Raises:
        MissingDependencyError: The top-level package is not installed. An import error
            inside an installed package is not hidden: it propagates as it is.
    """
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise MissingDependencyError(
            f"{used_by} needs the package `{package}`, which is not installed. "
            f"Install it with: {install}"
        ) from error
