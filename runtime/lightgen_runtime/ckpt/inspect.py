"""What a file holds, for a person or a program to read."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

from lightgen_runtime.ckpt.contents import Contents, as_json, dtype_of, nbytes
from lightgen_runtime.ckpt.table import columns, hanging, heading, listing, number, size


def describe(contents: Contents) -> dict[str, Any]:
    """Return what the file holds as JSON can say it."""
    checkpoint = contents.checkpoint
    tensors = {k: v for k, v in contents.weights.items() if isinstance(v, Tensor)}
    return {
        "path": str(contents.path),
        "kind": contents.kind,
        "bytes": contents.size,
        "epoch": checkpoint.get("epoch"),
        "step": checkpoint.get("global_step"),
        "hyperparameters": as_json(contents.hyperparameters),
        "parameters": [
            {"name": name, "shape": list(v.shape), "dtype": dtype_of(v)}
            for name, v in tensors.items()
        ],
        "numbers": sum(v.numel() for v in tensors.values()),
        "weight_bytes": nbytes(tensors),
        "optimizers": [_optimizer(contents, n) for n in range(_count(contents))],
        "schedulers": _schedulers(contents),
        "callbacks": as_json(checkpoint.get("callbacks") or {}),
        "other_keys": sorted(set(map(str, checkpoint)) - _SHOWN),
        "resumes": contents.is_resumable,
    }


_SHOWN = {
    *("epoch", "global_step", "state_dict", "callbacks", "optimizer_states"),
    *("lr_schedulers", "hyper_parameters", "datamodule_hyper_parameters", "loops"),
    *("hparams_name", "datamodule_hparams_name", "lightgen"),
    "pytorch-lightning_version",
}


def _count(contents: Contents) -> int:
    return len(contents.checkpoint.get("optimizer_states") or ())


def _optimizer(contents: Contents, number: int) -> dict[str, Any]:
    state = contents.checkpoint["optimizer_states"][number]
    groups = state.get("param_groups") or () if isinstance(state, dict) else ()
    named = _entry(contents.own.get("optimizers"), number)
    return {
        "class": named.get("class"),
        "bytes": nbytes(state),
        "groups": [
            {
                "parameters": len(group.get("params") or ()),
                **{k: as_json(v) for k, v in group.items() if k != "params"},
            }
            for group in groups
        ],
    }


def _schedulers(contents: Contents) -> list[dict[str, Any]]:
    return [
        {
            "class": _entry(contents.own.get("schedulers"), number).get("class"),
            "last_epoch": as_json(state.get("last_epoch")),
            "last_lr": as_json(state.get("_last_lr")),
        }
        for number, state in enumerate(contents.checkpoint.get("lr_schedulers") or ())
        if isinstance(state, dict)
    ]


def _entry(listed: Any, number: int) -> dict[str, Any]:
    """Return an entry that only newer files have."""
    found = listed[number] if isinstance(listed, list) and number < len(listed) else {}
    return found if isinstance(found, dict) else {}


def rendered(found: dict[str, Any]) -> str:
    """Return the description as a page for a terminal."""
    facts = {
        "file": found["path"],
        "kind": found["kind"],
        "size": f"{size(found['bytes'])}, {size(found['weight_bytes'])} of it weights",
        "epoch": found["epoch"],
        "step": found["step"],
        "resumes": "yes" if found["resumes"] else "no: it holds weights only",
    }
    parts = [listing({k: v for k, v in facts.items() if v is not None})]
    if found["hyperparameters"]:
        parts.append(
            heading("hyperparameters", listing(found["hyperparameters"], indent=2))
        )
    parts.append(heading("weights", _weights(found)))
    if found["optimizers"]:
        parts.append(heading("optimizers", _optimizers(found)))
    if found["schedulers"]:
        rows = [
            [n, s["class"] or "", f"step {s['last_epoch']}", f"lr {s['last_lr']}"]
            for n, s in enumerate(found["schedulers"])
        ]
        parts.append(heading("schedulers", columns(rows)))
    if found["callbacks"]:
        parts.append(heading("callbacks", _callbacks(found["callbacks"])))
    if found["other_keys"]:
        parts.append(heading("other keys", "  " + ", ".join(found["other_keys"])))
    return "\n\n".join(parts)


def _weights(found: dict[str, Any]) -> str:
    """Return one line a module, its own parameters and buffers in it."""
    modules: dict[str, list[dict[str, Any]]] = {}
    for entry in found["parameters"]:
        modules.setdefault(entry["name"].rpartition(".")[0], []).append(entry)
    rows = []
    for module, entries in modules.items():
        total = sum(_numel(entry["shape"]) for entry in entries)
        shapes = ", ".join(
            f"{entry['name'].rpartition('.')[2]} {tuple(entry['shape'])}"
            for entry in entries
        )
        dtypes = ", ".join(dict.fromkeys(entry["dtype"] for entry in entries))
        rows.append([module or "(top)", number(total), dtypes, shapes])
    rows.append(["total", number(found["numbers"]), "", ""])
    return columns(rows, right={1})


def _numel(shape: list[int]) -> int:
    total = 1
    for length in shape:
        total *= length
    return total


def _optimizers(found: dict[str, Any]) -> str:
    rows = []
    for index, optimizer in enumerate(found["optimizers"]):
        rows.append([index, optimizer["class"] or "", size(optimizer["bytes"]), ""])
        for place, group in enumerate(optimizer["groups"]):
            options = ", ".join(
                f"{name} {value}"
                for name, value in group.items()
                if name != "parameters" and value not in (None, False)
            )
            count = f"{group['parameters']} parameters"
            rows.append(["", f"group {place}", count, options])
    return columns(rows)


def _callbacks(callbacks: dict[str, Any]) -> str:
    blocks = []
    for key, state in callbacks.items():
        block = hanging("  ", re.sub(r", '\w+': None", "", key), indent=6)
        state = state if isinstance(state, dict) else {}
        told = {k: v for k, v in state.items() if _tells(k, v)}
        blocks.append(f"{block}\n{listing(told, indent=4)}" if told else block)
    return "\n".join(blocks)


def _tells(name: str, value: Any) -> bool:
    """Tell what is of interest to a person: not where files were."""
    is_path = name in ("dirpath", "best_k_models") or name.endswith("_path")
    return value is not None and not is_path
