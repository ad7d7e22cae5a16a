"""The optimizer options that `regen optimizer` and `new` have in common."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from lightgen.optim.options import OptimizerOptions

_TEXT = str | None
_TEXTS = list[str] | None


def _flag(kind: Any, metavar: str, text: str, *names: str) -> Any:
    return Annotated[kind, typer.Option(*names, metavar=metavar, help=text)]


FLAGS: dict[str, Any] = {
    "optimizer": _flag(
        _TEXTS,
        "[LABEL=]NAME[:KEY=VALUE,...][@SELECTOR]",
        "Optimizer; several with labels step on their own, without share steps.",
    ),
    "lr": _flag(_TEXT, "NUMBER", "Learning rate, or hparams.NAME."),
    "weight_decay": _flag(_TEXT, "NUMBER", "Weight decay, or hparams.NAME."),
    "opt": _flag(_TEXTS, "KEY=VALUE", "Any other argument; may be repeated."),
    "from_config": _flag(
        _TEXT, "NAME,...", "Arguments to take from the configuration (self.hparams)."
    ),
    "no_decay": _flag(
        _TEXT,
        "WORD,...",
        "What has no weight decay: bias, norm, embedding, selectors; or none.",
    ),
    "lr_scale": _flag(
        _TEXTS,
        "SELECTOR=FACTOR",
        "Factor of the rate for a part; may be repeated; none clears all.",
    ),
    "layer_decay": _flag(
        _TEXT,
        "FACTOR",
        "Factor of the rate from each layer to the one below it; or none.",
        "--layer-decay",
        "--llrd",
    ),
    "layers": _flag(_TEXT, "GLOB", "The layers, as in backbone.blocks.*"),
    "freeze": _flag(
        _TEXTS, "SELECTOR", "What is not trained; may be repeated; none clears all."
    ),
    "schedule": _flag(
        _TEXTS,
        "[LABEL=]SCHEDULE",
        'Such as "warmup:5% > cosine"; `>` then, `+` times, `&` beside; or none.',
    ),
    "interval": _flag(_TEXT, "step|epoch", "When the schedule steps."),
    "monitor": _flag(_TEXT, "METRIC", "The metric that plateau watches."),
    "mode": _flag(_TEXT, "min|max", "Whether it is to fall or to rise."),
    "strict": Annotated[
        bool | None,
        typer.Option(
            "--strict/--no-strict", help="Whether a missing metric is an error."
        ),
    ],
    "recipe": _flag(_TEXT, "NAME", "Begin with a known combination."),
    "spec": _flag(Path | None, "FILE", "Begin with the options in a YAML file."),
}
"""The type and the help of each option, by its field in `OptimizerOptions`."""


def with_optimizer_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the optimizer options, behind its own.

    Args:
        command: Takes them as `options`, an `OptimizerOptions`.
    """
    hints = get_type_hints(command, include_extras=True)
    own = [
        parameter.replace(annotation=hints[parameter.name])
        for parameter in inspect.signature(command).parameters.values()
        if parameter.name != "options"
    ]
    shared = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind
        )
        for name, kind in FLAGS.items()
    ]

    def run(**values: Any) -> None:
        said = {name: values.pop(name) for name in FLAGS}
        given = {name: value for name, value in said.items() if value not in (None, [])}
        command(options=OptimizerOptions(**given), **values)

    run.__doc__ = command.__doc__
    run.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in (*own, *shared)}
    return run
