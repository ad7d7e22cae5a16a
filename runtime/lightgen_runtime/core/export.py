"""Leaving Python: a module as an ONNX or TorchScript file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch
from torch import nn

from lightgen_runtime.core.data_hooks import DataHooks, data_owner
from lightgen_runtime.utilities.atomic_write import atomic_write
from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.imports import import_extra
from lightgen_runtime.utilities.rank_zero import rank_zero_deprecation

if TYPE_CHECKING:
    from lightgen_runtime.core.module import LightningModule

_INSTALL_ONNX = "pip install onnx onnxscript"


class Exportable:
    """Gives a module `to_onnx` and `to_torchscript`."""

    @torch.no_grad()
    def to_onnx(
        self: Any,
        file_path: str | PathLike[str] | IO[bytes] | None = None,
        input_sample: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Export `forward`, in evaluation mode, to ONNX.

        Args:
            file_path: The file to write; None writes none.
            input_sample: What to call `forward` with: a tensor, a tuple of arguments or a
                dictionary of them; None takes `example_input_array`. It passes the hooks
                that a batch passes on its way to the device.
            kwargs: For `torch.onnx.export`.

        Returns:
            What `torch.onnx.export` returns.

        Raises:
            MissingDependencyError: `onnx` or `onnxscript` is not installed.
            MisconfigurationException: There is no sample.

        Compat: Lightning exports in whatever mode the module is in.
        """
        name = f"{type(self).__name__}.to_onnx"
        import_extra("onnx", install=_INSTALL_ONNX, used_by=f"`{name}`")
        if kwargs.get("dynamo", True):
            import_extra("onnxscript", install=_INSTALL_ONNX, used_by=f"`{name}`")
        args, keywords = as_arguments(example_inputs(self, input_sample, name))
        # Not only a path: torch takes a stream too, though it does not say so.
        target: Any = (
            fspath(file_path) if isinstance(file_path, PathLike) else file_path
        )
        with evaluating(self):
            return torch.onnx.export(self, args, target, kwargs=keywords, **kwargs)

    @torch.no_grad()
    def to_torchscript(
        self: Any,
        file_path: str | PathLike[str] | None = None,
        method: str = "script",
        example_inputs: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Compile `forward`, in evaluation mode, to TorchScript, which torch deprecates.

        Args:
            file_path: The file to write; None writes none.
            method: "script" compiles the code, "trace" records one call.
            example_inputs: What to trace with, as `input_sample` of `to_onnx`.
            kwargs: For `torch.jit.script` or `torch.jit.trace`.

        Returns:
            The compiled module.

        Raises:
            MisconfigurationException: There is no sample, or `method` is another.
        """
        name = f"{type(self).__name__}.to_torchscript"
        if method not in ("script", "trace"):
            raise MisconfigurationException(
                f"`{name}(method={method!r})`: accepted are 'script' and 'trace'"
            )
        rank_zero_deprecation(
            f"`{name}`: torch deprecates TorchScript. Use `torch.export.export(module, "
            "args)` instead."
        )
        with evaluating(self), _readable(self):
            compiled = (
                torch.jit.script(self, **kwargs)
                if method == "script"
                else _traced(self, example_inputs, name, kwargs)
            )
        if file_path is not None:
            with atomic_write(Path(file_path)) as stream:
                torch.jit.save(compiled, stream)
        return compiled


def _traced(
    module: LightningModule, given: Any, name: str, options: dict[str, Any]
) -> Any:
    args, keywords = as_arguments(example_inputs(module, given, name))
    if keywords:
        options = {**options, "example_kwarg_inputs": keywords}
    return torch.jit.trace(module, args or None, **options)  # type: ignore[no-untyped-call]


def example_inputs(module: LightningModule, given: Any, caller: str) -> Any:
    """Return inputs of `forward`, having passed the hooks that a batch passes.

    Args:
        module: Whose inputs.
        given: A sample, or None for the module's `example_input_array`.
        caller: Name of the method that needs it, for the message.

    Raises:
        MisconfigurationException: There is neither.
    """
    sample = module.example_input_array if given is None else given
    if sample is None:
        raise MisconfigurationException(
            f"`{caller}` needs inputs to run the module with: pass a sample, or set "
            "`self.example_input_array` in `__init__`"
        )
    sample = _owner(module, "on_before_batch_transfer").on_before_batch_transfer(
        sample, 0
    )
    sample = _owner(module, "transfer_batch_to_device").transfer_batch_to_device(
        sample, module.device, 0
    )
    return _owner(module, "on_after_batch_transfer").on_after_batch_transfer(sample, 0)


def _owner(module: LightningModule, hook: str) -> DataHooks:
    """Return whose version of a transfer hook counts, the datamodule's first."""
    run = module.__dict__["_run"]
    return data_owner(hook, None if run is None else run.datamodule, module) or module


def as_arguments(sample: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return positional and named arguments: a tuple is the former, a dict the latter."""
    if isinstance(sample, Mapping):
        return (), dict(sample)
    return (sample if isinstance(sample, tuple) else (sample,)), {}


@contextmanager
def _readable(module: nn.Module) -> Iterator[None]:
    """Let every attribute be read inside, which TorchScript does.

    Without a run, reading `trainer` is an error.
    """
    free = [part for part in module.modules() if vars(part).get("_trainer", 0) is None]
    for part in free:
        vars(part)["_trainer"] = object()
    try:
        yield
    finally:
        for part in free:
            vars(part)["_trainer"] = None


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put every submodule into evaluation mode inside, and back into its own behind."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
