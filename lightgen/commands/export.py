"""`lightgen export`: become the project's own program, to write a model to a file."""

from __future__ import annotations

from typing import Annotated

import typer

from lightgen.commands.run import (
    AsJson,
    Checkpoint,
    Config,
    PrintConfig,
    verb_command,
)
from lightgen.project.paths import absolute_path

FormatOption = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="safetensors|onnx|torch-export",
        help="Weights alone, an ONNX model, or a program of torch.export.",
    ),
]
Output = Annotated[
    str | None,
    typer.Option(metavar="PATH", help="File to write. Default: in the run's folder."),
]
Force = Annotated[
    bool, typer.Option("--force", help="Replace a file; never a run's checkpoint.")
]


def export(
    context: typer.Context,
    file_format: FormatOption = "safetensors",
    ckpt: Checkpoint = None,
    output: Output = None,
    force: Force = False,
    config: Config = None,
    print_config: PrintConfig = False,
    as_json: AsJson = False,
) -> None:
    """Write the model of a checkpoint to a file for use elsewhere."""
    options = ["--format", file_format]
    if output is not None:
        options += ["--output", str(absolute_path(output, where="option --output"))]
    if force:
        options.append("--force")
    context.args[:0] = options
    verb_command("export")(context, config, ckpt, print_config, as_json)
