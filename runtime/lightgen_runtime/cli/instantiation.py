"""Building modules from a config, and having them save the config as hyperparameters."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from jsonargparse import ArgumentError, ArgumentParser, Namespace
from jsonargparse._common import parsing_settings

from lightgen_runtime.core.hparams import CLASS_PATH_KEY, given_hyperparameters
from lightgen_runtime.core.named_classes import NamedClasses, not_allowed, texts
from lightgen_runtime.utilities.exceptions import CheckpointFormatError

T = TypeVar("T")


class HyperparameterSaver:
    """Builds a module whose `save_hyperparameters` saves its part of the config.

    What `__init__` gets may be objects that were built from the config, and those cannot
    be stored.

    Args:
        config: Returns the whole config as plain data. Asked for when the module is
            built: until then hooks may change it.
        key: Where the part for this module stands in it.
    """

    def __init__(self, config: Callable[[], dict[str, Any]], key: str) -> None:
        self._config = config
        self._key = key

    def __call__(
        self,
        cls: type[T],
        *args: Any,
        applied_instantiation_links: Mapping[str, Any],
        **kwargs: Any,
    ) -> T:
        """Build an object of `cls`; called by the parser."""
        hparams = dict(self._config().get(self._key) or {})
        class_path = hparams.pop("class_path", None)
        if class_path is not None:
            if class_path.rpartition(".")[2] != cls.__name__:
                return cls(*args, **kwargs)  # an argument of the module, itself one
            inner = [
                hparams.pop(key, None) or {} for key in ("init_args", "dict_kwargs")
            ]
            hparams = {CLASS_PATH_KEY: class_path, **inner[0], **inner[1]}
        for target, value in applied_instantiation_links.items():
            if target.startswith(f"{self._key}."):
                name = target.removeprefix(f"{self._key}.").removeprefix("init_args.")
                _set_nested(hparams, name.split("."), value)
        with given_hyperparameters(cls, hparams):
            return cls(*args, **kwargs)


@contextmanager
def naming_only(named: NamedClasses, content: Any, source: object) -> Iterator[None]:
    """Have parsers import nothing inside that values name, but what is allowed.

    The settings are those of the process, as jsonargparse has them.

    Args:
        named: What the user has named.
        content: The values, from a file that may be anybody's.
        source: The file, for the message.

    Raises:
        CheckpointFormatError: A value names something else, or is of a wrong kind.
    """
    named.check(content, source)
    before = dict(parsing_settings)
    allowed = dict.fromkeys(named.paths_for(content), True)
    parsing_settings["import_path_verdicts"] = {"*": False, **allowed}
    parsing_settings["import_paths_enforced"] = True
    try:
        yield
    except ArgumentError as error:
        denied = re.findall(r"Importing '(\S+)' is not allowed", str(error))
        if denied:
            raise not_allowed(list(dict.fromkeys(denied)), source) from error
        raise CheckpointFormatError(
            f"the hyperparameters in `{source}` do not fit: {error}"
        ) from error
    finally:
        parsing_settings.update(before)


@contextmanager
def raising(parser: ArgumentParser) -> Iterator[None]:
    """Have `parser` raise inside what would end the program."""
    parser.exit_on_error = False
    try:
        yield
    finally:
        parser.exit_on_error = True


def named_in(config: dict[str, Any]) -> NamedClasses:
    """Return what the user has named in a config, which has been parsed."""
    found = []
    for text in texts(config):
        module, _, name = text.rpartition(".")
        if module in sys.modules and hasattr(sys.modules[module], name):
            named = getattr(sys.modules[module], name)
            found += [named, (named, text)]
    return NamedClasses(*found)


def instantiate_module(class_type: type[T], config: dict[str, Any]) -> T:
    """Build a module from hyperparameters that a command line saved.

    Args:
        class_type: The class.
        config: Its arguments as a config has them; `_class_path` names a subclass of
            `class_type` to build instead.
    """
    parser = ArgumentParser(exit_on_error=False)
    if CLASS_PATH_KEY in config:
        arguments = {k: v for k, v in config.items() if k != CLASS_PATH_KEY}
        config = {"class_path": config[CLASS_PATH_KEY], "init_args": arguments}
        parser.add_subclass_arguments(class_type, "module", fail_untyped=False)
    else:
        parser.add_class_arguments(class_type, "module", fail_untyped=False)
    built: Namespace = parser.instantiate(parser.parse_object({"module": config}))
    module: T = built.module
    return module


def _set_nested(values: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        values = values[key]
    values[keys[-1]] = value
