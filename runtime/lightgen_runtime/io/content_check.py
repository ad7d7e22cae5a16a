"""Whether what was read is shaped like a checkpoint, before anybody relies on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from lightgen_runtime.io.archive_check import USE_ANOTHER, is_absurd
from lightgen_runtime.io.location import AnyPath
from lightgen_runtime.utilities.exceptions import (
    CheckpointFormatError,
    LightgenRuntimeError,
)

_DEEPEST = 100
_ALWAYS_FINE_ENTRIES = 10_000_000

# Source: Lightning 2.6.6's files.
_KINDS: dict[str, tuple[str, type | tuple[type, ...]]] = {
    "epoch": ("a number", int),
    "global_step": ("a number", int),
    "state_dict": ("a mapping", Mapping),
    "loops": ("a mapping", (Mapping, type(None))),
    "callbacks": ("a mapping", (Mapping, type(None))),
    "optimizer_states": ("a list", (list, tuple)),
    "lr_schedulers": ("a list", (list, tuple)),
    "hyper_parameters": ("a mapping", (Mapping, type(None))),
    "datamodule_hyper_parameters": ("a mapping", (Mapping, type(None))),
    "hparams_name": ("a name", (str, type(None))),
    "datamodule_hparams_name": ("a name", (str, type(None))),
    "lightgen": ("a mapping", Mapping),
}
# What has names, and where it says of which single argument it is the value instead.
_BY_NAME = {
    "state_dict": None,
    "hyper_parameters": "hparams_name",
    "datamodule_hyper_parameters": "datamodule_hparams_name",
}


def check_content(checkpoint: object, path: AnyPath) -> dict[str, Any]:
    """Return `checkpoint`, having seen that it is one.

    Args:
        checkpoint: What a safe loader made of the file.
        path: The file, for the message.

    Raises:
        CheckpointFormatError: It is something else, or an entry has the wrong type.
    """
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise CheckpointFormatError(
            f"`{path}` is not a checkpoint of a run: it holds {_described(checkpoint)}, "
            f"where a mapping with the key `state_dict` is needed. {USE_ANOTHER}"
        )
    for key, (kind, types) in _KINDS.items():
        if key in checkpoint and not isinstance(checkpoint[key], types):
            raise CheckpointFormatError(
                f"`{path}` holds {_described(checkpoint[key])} under `{key}`, where "
                f"{kind} is needed. {USE_ANOTHER}"
            )
    for key, one_argument in _BY_NAME.items():
        if one_argument and checkpoint.get(one_argument) not in (None, "kwargs"):
            continue
        odd = [name for name in checkpoint.get(key) or () if not isinstance(name, str)]
        if odd:
            raise CheckpointFormatError(
                f"`{path}` holds names under `{key}` that are no text: {odd[:4]!r:.200}. "
                f"{USE_ANOTHER}"
            )
    metadata = getattr(checkpoint["state_dict"], "_metadata", {})
    if not isinstance(metadata, Mapping) or not all(
        isinstance(entry, Mapping) for entry in metadata.values()
    ):
        raise CheckpointFormatError(
            f"`{path}` holds versions of its modules, as `state_dict._metadata`, that are "
            f"none. {USE_ANOTHER}"
        )
    return checkpoint


def check_structure(content: object, path: AnyPath, size: int) -> None:
    """Refuse data that is small in a file and endless to whoever walks through it.

    Args:
        content: What a safe loader made of the file.
        path: The file, for the message.
        size: Of the file, in bytes.

    Raises:
        CheckpointFormatError: Containers hold themselves, are nested too deeply, or
            share parts so often that they would be huge written out; or a tensor is
            huge without having the memory for it.
    """
    entries: dict[int, int] = {}  # by container: entries below it, each time counted
    under_way: set[int] = set()
    most = max(_ALWAYS_FINE_ENTRIES, size)
    stack: list[tuple[Any, list[Any] | None]] = [([content], None)]
    while stack:
        value, parts = stack.pop()
        key = id(value)
        if parts is not None:
            under_way.remove(key)
            entries[key] = len(value) + sum(entries[id(part)] for part in parts)
            if entries[key] > most:
                raise _endless(path, f"more than {most} entries")
        elif key in under_way:
            raise _endless(path, "a container that holds itself")
        elif key not in entries:
            if len(under_way) >= _DEEPEST:
                raise _endless(path, f"containers nested more than {_DEEPEST} deep")
            under_way.add(key)
            parts = _containers_in(value, path, size)
            stack.append((value, parts))
            stack += [(part, None) for part in parts]


# What a safe loader makes, and a YAML file.
_CONTAINERS = (dict, list, tuple, set)


def _containers_in(value: Any, path: AnyPath, size: int) -> list[Any]:
    found = []
    for part in value.values() if isinstance(value, dict) else value:
        if isinstance(part, _CONTAINERS):
            found.append(part)
        elif isinstance(part, Tensor):
            # On the device "meta" it has no content, which files beside this one hold.
            is_empty = part.is_sparse or part.is_meta
            nbytes = 0 if is_empty else part.numel() * part.element_size()
            if is_absurd(nbytes, size):
                raise _endless(path, f"a tensor of {tuple(part.shape)}, {nbytes} bytes")
    return found


def _endless(path: AnyPath, found: str) -> CheckpointFormatError:
    return CheckpointFormatError(
        f"`{path}` holds {found}, which no run has saved. " f"{USE_ANOTHER}"
    )


@contextmanager
def reading(
    key: str, source: object, but: type[Exception] = LightgenRuntimeError
) -> Iterator[None]:
    """Make what goes wrong with one entry of a checkpoint an error that names it.

    Around code of ours, and what takes states alone (a logger, an optimizer): an error of
    a user's own hook is to pass as it is.

    Args:
        key: Where in the checkpoint.
        source: The file.
        but: What passes through, because the caller makes something better of it.
    """
    try:
        yield
    except (LightgenRuntimeError, but):
        raise
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise CheckpointFormatError(
            f"what `{source}` holds under `{key}` cannot be used: "
            f"{type(error).__name__}: {error}. It was not written by this runtime or by "
            f"Lightning, or was changed since. {USE_ANOTHER}"
        ) from error


def _described(content: object) -> str:
    if isinstance(content, dict):
        return f"a mapping with the keys {sorted(map(str, content))[:8]}"
    return f"one object of type `{type(content).__name__}`"
