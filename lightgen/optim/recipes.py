"""Specifications that are known to work well together, by name.

The numbers are starting points for a first run, not results.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final


@dataclass(frozen=True)
class Recipe:
    """One recipe.

    Attributes:
        title: What it is for, in a line.
        record: The specification, as in a `--spec` file.
    """

    title: str
    record: Mapping[str, Any]


def _recipe(title: str, *optimizers: str, schedule: str = "", **more: Any) -> Recipe:
    record: dict[str, Any] = {"optimizer": list(optimizers), **more}
    if schedule:
        record["schedule"] = {"": schedule}
    return Recipe(title, MappingProxyType(record))


RECIPES: Final[Mapping[str, Recipe]] = MappingProxyType(
    {
        "adamw-cosine": _recipe(
            "transformers and most else: warm up, then along a cosine",
            "adamw:lr=hparams.lr,weight_decay=0.05",
            schedule="warmup:5% > cosine",
            no_decay=["bias", "norm"],
        ),
        "sgd-step": _recipe(
            "convolutional nets as of old: three drops",
            "sgd:lr=hparams.lr,momentum=0.9,weight_decay=0.0001",
            schedule="multistep:milestones=30%:60%:90%",
        ),
        "sgd-onecycle": _recipe(
            "convolutional nets in few epochs",
            "sgd:lr=hparams.lr,momentum=0.9,weight_decay=0.0005,nesterov=true",
            schedule="onecycle",
        ),
        "adam-plateau": _recipe(
            "tables and small data: slower when validation stops improving",
            "adam:lr=hparams.lr",
            schedule="plateau:monitor=val_loss,patience=5",
        ),
        # Source: K. Jordan et al. 2024 (Muon): matrices inside the net by Muon, all else
        # by AdamW; the last layer is a matrix too and has to be named with `!`.
        "muon-adamw": _recipe(
            "transformers: Muon for the matrices inside, AdamW for the rest",
            "muon:lr=0.02@ndim==2,!type:Embedding",
            "adamw:lr=hparams.lr",
            schedule="warmup:2% > hold:70% > decay",
        ),
        "wsd": _recipe(
            "runs that may be prolonged: warm up, hold, come down at the end",
            "adamw:lr=hparams.lr,weight_decay=0.05",
            schedule="warmup:2% > hold:78% > decay",
            no_decay=["bias", "norm"],
        ),
        "lbfgs": _recipe("few parameters and the whole data in a batch", "lbfgs:lr=1"),
    }
)
