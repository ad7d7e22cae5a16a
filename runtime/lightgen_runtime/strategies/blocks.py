"""Which parts of a model are sharded by themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from torch import nn

from lightgen_runtime.utilities.exceptions import MisconfigurationException

_COLLECTIONS = (nn.ModuleList, nn.ModuleDict)  # which cannot be called
_CONTAINERS = (*_COLLECTIONS, nn.Sequential)


def repeated_blocks(module: nn.Module) -> list[nn.Module]:
    """Return the outermost layers that a container holds several of.

    Those are the blocks of transformers and of most other deep models. A block that has
    a parameter in common with another part of the model is left out.
    """
    counts = Counter(
        id(parameter)
        for part in module.modules()
        for parameter in part._parameters.values()
    )
    return [b for b in _repeated(module) if _owns_its_parameters(b, counts)]


def blocks_of_classes(
    module: nn.Module, classes: Iterable[type[nn.Module]]
) -> list[nn.Module]:
    """Return the parts of the given classes, inner ones first.

    Raises:
        MisconfigurationException: There is none of a class.
    """
    wanted = tuple(classes)
    for each in wanted:
        if not any(isinstance(part, each) for part in module.modules()):
            raise MisconfigurationException(
                f"`FSDPStrategy(auto_wrap_policy=...)` names {each.__name__}, and "
                f"{type(module).__name__} has no part of that class. Its parts are "
                f"{_class_names(module)}."
            )
    parts = [part for part in module.modules() if isinstance(part, wanted)]
    return [part for part in reversed(parts) if part is not module]


def callable_parts(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the children, in place of mere collections what is in them."""
    for child in module.children():
        if isinstance(child, _COLLECTIONS):
            yield from callable_parts(child)
        else:
            yield child


def _repeated(module: nn.Module) -> Iterator[nn.Module]:
    classes = Counter(type(child) for child in module.children())
    for child in module.children():
        several = isinstance(module, _CONTAINERS) and classes[type(child)] > 1
        if several and not isinstance(child, _COLLECTIONS) and _has_parameters(child):
            yield child
        else:
            yield from _repeated(child)


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _owns_its_parameters(block: nn.Module, counts: Counter[int]) -> bool:
    inside = Counter(
        id(parameter)
        for part in block.modules()
        for parameter in part._parameters.values()
        if parameter is not None
    )
    return all(counts[key] == count for key, count in inside.items())


def _class_names(module: nn.Module) -> str:
    names = sorted({type(part).__name__ for part in module.modules()})
    return ", ".join(names)
