"""`export`: the model of a checkpoint as a file for use outside of the runtime."""

from __future__ import annotations

import inspect
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from lightgen_runtime.core.datamodule import LightningDataModule
from lightgen_runtime.core.export import as_arguments, evaluating, example_inputs
from lightgen_runtime.core.hooks import is_overridden
from lightgen_runtime.core.loading import load_module
from lightgen_runtime.core.module import LightningModule
from lightgen_runtime.core.named_classes import path_of
from lightgen_runtime.io import TorchCheckpointIO
from lightgen_runtime.io.safetensors_file import write_safetensors
from lightgen_runtime.utilities.atomic_write import atomic_write
from lightgen_runtime.utilities.exceptions import (
    CheckpointWriteError,
    LightgenRuntimeError,
    MisconfigurationException,
)

ExportFormat = Literal["safetensors", "onnx", "torch-export"]

SUFFIXES = {"safetensors": ".safetensors", "onnx": ".onnx", "torch-export": ".pt2"}


class ExportCommand:
    """Beside a Trainer's methods, what the subcommand takes."""

    def export(
        self,
        format: ExportFormat = "safetensors",
        ckpt_path: str | None = None,
        output: str | None = None,
    ) -> None:
        """Write the model of a checkpoint to a file for use elsewhere.

        Args:
            format: What to write: weights with their names, an ONNX model, or a program
                of `torch.export`.
            ckpt_path: best, last, the number of a run, or the path of a checkpoint;
                the best by default.
            output: The file to write; by default `model.<suffix>` in the run's folder.
        """


def export_model(
    module: LightningModule,
    datamodule: LightningDataModule | None,
    checkpoint_path: Path,
    export_format: ExportFormat,
    path: Path,
) -> None:
    """Load a checkpoint's weights into `module` and write it, whole or not at all.

    Args:
        module: The model; it ends with the checkpoint's weights, on the CPU.
        datamodule: Where a first batch is taken from if the model has no
            `example_input_array`.
        checkpoint_path: The checkpoint.
        export_format: "safetensors" needs no input; the others follow one call of
            `forward`, in evaluation mode, the first axis of whose inputs may vary.
        path: The file to write.

    Raises:
        CheckpointMismatchError: The weights do not fit.
        CheckpointWriteError: The system refuses to write the file.
        MissingDependencyError: A package for the format is not installed.
        MisconfigurationException: There is no input, or `forward` cannot be exported.
    """
    checkpoint = TorchCheckpointIO().load_checkpoint(checkpoint_path)
    load_module(module, checkpoint, None, checkpoint_path)
    about = _about(module, checkpoint)
    if export_format == "safetensors":
        with _writing(path):
            write_safetensors(path, module.state_dict(), about)
        return
    sample = module.example_input_array
    if sample is None:
        sample = _first_inputs(module, datamodule, export_format)
    try:
        content = _EXPORTERS[export_format](module, sample, about)
    except (torch._dynamo.exc.TorchDynamoException, RuntimeError) as error:
        first = str(error).strip().partition("\n")[0]
        raise MisconfigurationException(
            f"`forward` of {type(module).__name__} cannot be exported to {export_format}: "
            f"{type(error).__name__}: {first}. What depends on values in its inputs "
            "cannot; `--format safetensors` takes the weights alone."
        ) from error
    with _writing(path), atomic_write(path) as stream:
        stream.write(content)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except LightgenRuntimeError:  # such as a package that is not installed
        raise
    except OSError as error:
        raise CheckpointWriteError(path, error) from error


def _about(module: LightningModule, checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return what the file says of where it is from."""
    keys = ("epoch", "global_step", "hyper_parameters", "hparams_name")
    found = {key: checkpoint[key] for key in keys if key in checkpoint}
    text = json.dumps({"class": path_of(type(module)), **found}, default=str)
    about: dict[str, Any] = json.loads(text)
    return about


def _as_onnx(module: LightningModule, sample: Any, about: dict[str, Any]) -> bytes:
    free = _free_axes(example_inputs(module, sample, "lightgen export"))
    with _without_notices():
        program = module.to_onnx(
            None, sample, dynamo=True, verbose=False, dynamic_shapes=free
        )
    model = program.model_proto
    entry = model.metadata_props.add()
    entry.key, entry.value = "lightgen", json.dumps(about)
    content: bytes = model.SerializeToString()
    return content


@contextmanager
def _without_notices() -> Iterator[None]:
    """Leave out what torch's exporter says of itself and of packages that are not there."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logger.setLevel(level)


def _as_program(module: LightningModule, sample: Any, about: dict[str, Any]) -> bytes:
    inputs = example_inputs(module, sample, "lightgen export")
    args, keywords = as_arguments(inputs)
    stream = io.BytesIO()
    with evaluating(module), torch.no_grad():
        program = torch.export.export(
            module, args, keywords, dynamic_shapes=_free_axes(inputs)
        )
    extra = {"lightgen.json": json.dumps(about)}
    torch.export.save(program, stream, extra_files=extra)
    return stream.getvalue()


_EXPORTERS = {"onnx": _as_onnx, "torch-export": _as_program}


def _free_axes(inputs: Any) -> Any:
    """Return, for each tensor, that its first axis is the batch's, and may vary."""
    args, keywords = as_arguments(inputs)

    def axes(value: Any) -> Any:
        is_batch = isinstance(value, Tensor) and value.ndim > 0
        return {0: torch.export.Dim.AUTO} if is_batch else None

    given = keywords or args
    return tree_map(axes, dict(given) if keywords else tuple(given))


def _first_inputs(
    module: LightningModule, datamodule: LightningDataModule | None, what: str
) -> Any:
    """Return what `forward` takes of the first batch to predict, or to validate with."""
    for stage, hook in (
        ("predict", "predict_dataloader"),
        ("validate", "val_dataloader"),
    ):
        if is_overridden(hook, datamodule, LightningDataModule) and datamodule:
            datamodule.prepare_data()
            datamodule.setup(stage)
            batch = next(iter(getattr(datamodule, hook)()), None)
            if batch is not None:
                return _inputs_in(batch, module)
    raise MisconfigurationException(
        f"exporting to {what} follows one call of `forward`, and there is nothing to call "
        f"it with: set `self.example_input_array` in `__init__` of "
        f"{type(module).__name__}, or define `predict_dataloader` or `val_dataloader`"
    )


def _inputs_in(batch: Any, module: LightningModule) -> Any:
    parameters = list(inspect.signature(module.forward).parameters)
    if isinstance(batch, Mapping):
        named = {name: batch[name] for name in parameters if name in batch}
        return named or (batch,)
    if isinstance(batch, (list, tuple)):
        return tuple(batch[: len(parameters)])  # what follows are targets
    return (batch,)
