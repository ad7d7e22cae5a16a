"""Checkpoints that would run code, or use up the machine, if a loader let them.

A payload that runs creates the file that `MARKER` names in its environment.
"""

from __future__ import annotations

import copy
import importlib
import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Content = dict[str, Any]

MARKER = "LIGHTGEN_TEST_MARKER"
TOUCH = f"open(__import__('os').environ['{MARKER}'], 'w').close()"
SHELL = f'touch "${MARKER}"'
BY_CONFIG = {"_instantiator": "lightning.pytorch.cli.instantiate_module"}


class Gadget:
    """Pickles as a call of `function`."""

    def __init__(self, function: Any = exec, *args: Any) -> None:
        self.call = (function, args or (TOUCH,))

    def __reduce__(self) -> Any:
        return self.call


class Stateful:
    """Pickles as an object of a class of ours, whose `__setstate__` runs code."""

    def __setstate__(self, state: Any) -> None:
        exec(state)

    def __reduce__(self) -> Any:
        return Stateful, (), TOUCH


def write_stream(stream: bytes, path: Path) -> None:
    """Write an archive of torch's with this in the place of its pickle."""
    torch.save({"state_dict": {}}, path)
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, record in records.items():
            archive.writestr(name, stream if name.endswith("/data.pkl") else record)


# ---- code, as objects somewhere in the content ----

FUNCTIONS: dict[str, Gadget | Stateful] = {
    "exec": Gadget(exec, TOUCH),
    "eval": Gadget(eval, TOUCH),
    "system": Gadget(os.system, SHELL),
    "process": Gadget(subprocess.Popen, ["touch", "x"]),
    "import": Gadget(importlib.import_module, "evil_module"),
    "getattr": Gadget(getattr, Path, "home"),
    "pickle": Gadget(pickle.loads, pickle.dumps(Gadget())),
    "torch.load": Gadget(torch.load, "other.ckpt"),
    "compile": Gadget(compile, TOUCH, "x", "exec"),
    "path": Gadget(Path, "x"),
    "setstate": Stateful(),
}


def put_at(*keys: str | int) -> Callable[[Content], Any]:
    """Return what puts a gadget at a place in a sound checkpoint."""

    def put(content: Content) -> Any:
        parent: Any = content
        for key in keys[:-1]:
            parent = parent[key]
        parent[keys[-1]] = Gadget()
        return content

    return put


def as_name_of_a_weight(content: Content) -> Any:
    content["state_dict"] = {Gadget(): torch.ones(1)}
    return content


def as_version_of_a_module(content: Content) -> Any:
    weights = OrderedDict(content["state_dict"])
    weights._metadata = Gadget()  # type: ignore[attr-defined]
    content["state_dict"] = weights
    return content


def as_type_of_hyperparameters(content: Content) -> Any:
    content["hparams_type"] = Stateful  # a class, as Lightning stores OmegaConf's
    return content


OBJECTS: dict[str, Callable[[Content], Any]] = {
    "all of it": lambda content: Gadget(),
    "a key of its own": put_at("mine"),
    "epoch": put_at("epoch"),
    "version": put_at("pytorch-lightning_version"),
    "a weight": put_at("state_dict", "layer.weight"),
    "an extra state": put_at("state_dict", "_extra_state"),
    "name of a weight": as_name_of_a_weight,
    "version of a module": as_version_of_a_module,
    "optimizer": put_at("optimizer_states", 0, "state", 0, "exp_avg"),
    "param group": put_at("optimizer_states", 0, "param_groups", 0, "lr"),
    "scheduler": put_at("lr_schedulers", 0, "last_epoch"),
    "callback": put_at("callbacks", "Counting", "count"),
    "hyperparameter": put_at("hyper_parameters", "width"),
    "name of hyperparameters": put_at("hparams_name"),
    "type of hyperparameters": as_type_of_hyperparameters,
    "data hyperparameter": put_at("datamodule_hyper_parameters", "rows"),
    "data state": put_at("Rows"),
    "loops": put_at("loops", "fit_loop", "epoch_progress"),
    "scaler": put_at("MixedPrecision"),
    "own progress": put_at("lightgen", "progress", "epoch"),
    "own random states": put_at("lightgen", "rng", "torch"),
    **{
        f"{name} as a weight": lambda content, g=gadget: {"state_dict": {"w": g}}  # type: ignore[misc]
        for name, gadget in FUNCTIONS.items()
    },
}


# ---- files that are no archive of torch's ----


def legacy(content: Content, path: Path) -> None:
    content["mine"] = Gadget()
    torch.save(content, path, _use_new_zipfile_serialization=False)


def pickled(protocol: int) -> Callable[[Content, Path], None]:
    def write(content: Content, path: Path) -> None:
        path.write_bytes(pickle.dumps({"state_dict": Gadget()}, protocol))

    return write


def scripted(content: Content, path: Path) -> None:
    class Scripted(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1

    torch.jit.save(torch.jit.script(Scripted()), path)


def opcodes(stream: bytes) -> Callable[[Content, Path], None]:
    return lambda content, path: write_stream(stream, path)


def rewritten(change: Callable[[zipfile.ZipFile, str], None], **kwargs: Any) -> Any:
    """Return what writes a sound checkpoint and `change`s its archive."""

    def write(content: Content, path: Path) -> None:
        torch.save(content, path)
        with zipfile.ZipFile(path, "a", **kwargs) as archive:
            change(archive, archive.namelist()[0].partition("/")[0])

    return write


def add_bomb(archive: zipfile.ZipFile, root: str) -> None:
    with archive.open(f"{root}/data/999", "w") as record:
        for _ in range(200):
            record.write(bytes(2**20))


def add_code(archive: zipfile.ZipFile, root: str) -> None:
    archive.writestr(f"{root}/constants.pkl", pickle.dumps(Gadget()))
    archive.writestr(f"{root}/code/__torch__.py", TOUCH)


def add_twice(archive: zipfile.ZipFile, root: str) -> None:
    archive.writestr(f"{root}/data.pkl", pickle.dumps(Gadget(), 2))


def add_outside(archive: zipfile.ZipFile, root: str) -> None:
    archive.writestr(f"{root}/../../../evil_module.py", TOUCH)


def add_at_root(archive: zipfile.ZipFile, root: str) -> None:
    archive.writestr("/tmp/evil_module.py", TOUCH)


def as_safetensors(header: bytes, declared: int | None = None) -> Any:
    def write(content: Content, path: Path) -> None:
        size = len(header) if declared is None else declared
        path.write_bytes(size.to_bytes(8, "little") + header + bytes(16))

    return write


def _header(**tensors: Any) -> bytes:
    return json.dumps(tensors).encode()


_WEIGHT = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}

FILES: dict[str, Callable[[Content, Path], None]] = {
    "legacy": legacy,
    **{f"pickle, protocol {n}": pickled(n) for n in (0, 1, 2, 4, 5)},
    "TorchScript": scripted,
    "archive with code": rewritten(add_code),
    "archive with a bomb": rewritten(add_bomb, compression=zipfile.ZIP_DEFLATED),
    "record twice": rewritten(add_twice),
    "record outside": rewritten(add_outside),
    "record at the root": rewritten(add_at_root),
    "extension code": opcodes(b"\x80\x02\x82\x01."),
    "foreign persistent id": opcodes(b"\x80\x02X\x04\x00\x00\x00evilQ."),
    "old instance": opcodes(b"(S'touch x'\nios\nsystem\n."),
    "stack global": opcodes(b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x01x\x85R."),
    "memory": opcodes(
        b"\x80\x02}X\x0a\x00\x00\x00state_dictc__builtin__\nbytearray\n"
        b"\x8a\x07\x00\x00\x00\x00\x00\x00\x7f\x85Rs."
    ),
    "no pickle": opcodes(b"\x80\x02" + b"(" * 1000),
    "endless text": opcodes(b"\x80\x02X\xff\xff\xff\x7fabc."),
}
SAFETENSORS: dict[str, Callable[[Content, Path], None]] = {
    "endless header": as_safetensors(b"{}", 2**62),
    "header that is no JSON": as_safetensors(b"{" * 64),
    "deep header": as_safetensors(b'{"a":' * 20_000 + b"1" + b"}" * 20_000),
    "offsets outside": as_safetensors(_header(w={**_WEIGHT, "data_offsets": [0, 99]})),
    "offsets shared": as_safetensors(_header(v=_WEIGHT, w=_WEIGHT)),
    "shape beyond": as_safetensors(_header(w={**_WEIGHT, "shape": [2**40, 2**40]})),
    "pickle with that name": pickled(2),
    "metadata that is no JSON": as_safetensors(
        _header(__metadata__={"lightgen": "{not json"}, w=_WEIGHT)
    ),
}


# ---- plain data that is a trap ----


def holds_itself(content: Content) -> Any:
    content["hyper_parameters"]["width"] = loop = []
    loop.append(loop)
    return content


def nested_deeply(content: Content) -> Any:
    deep: list[Any] = []
    for _ in range(800):
        deep = [deep]
    content["mine"] = deep
    return content


def laughing(content: Content) -> Any:
    lol: list[Any] = ["lol"] * 10
    for _ in range(12):
        lol = [lol] * 10
    content["callbacks"]["Counting"]["count"] = lol
    return content


def huge_for_nothing(content: Content) -> Any:
    content["optimizer_states"][0]["state"][0]["exp_avg"] = torch.ones(1).expand(2**40)
    return content


def with_value(value: Any, *keys: str | int) -> Callable[[Content], Any]:
    def put(content: Content) -> Any:
        parent: Any = content
        for key in keys[:-1]:
            parent = parent[key]
        parent[keys[-1]] = copy.deepcopy(value)
        return content

    return put


def without(*keys: str | int) -> Callable[[Content], Any]:
    def remove(content: Content) -> Any:
        parent: Any = content
        for key in keys[:-1]:
            parent = parent[key]
        del parent[keys[-1]]
        return content

    return remove


# Refused by whoever opens the file.
TRAPS: dict[str, Callable[[Content], Any]] = {
    "holds itself": holds_itself,
    "nested deeply": nested_deeply,
    "billion laughs": laughing,
    "huge tensor of one number": huge_for_nothing,
    "weights in a list": with_value([1], "state_dict"),
    "names that are numbers": with_value({1: 2}, "hyper_parameters"),
    "hyperparameters in a list": with_value([1], "hyper_parameters"),
    "data hyperparameters in a list": with_value([1], "datamodule_hyper_parameters"),
    "callbacks in a list": with_value([1], "callbacks"),
    "optimizers in a mapping": with_value({"a": 1}, "optimizer_states"),
    "epoch in words": with_value("one", "epoch"),
    "own key that is text": with_value("{}", "lightgen"),
}

# Refused by a fit that goes on from the file; whoever reads weights may not look there.
RESUME_TRAPS: dict[str, Callable[[Content], Any]] = {
    "optimizer of nothing": with_value({}, "optimizer_states", 0),
    "optimizer that is a number": with_value(1, "optimizer_states", 0),
    "scheduler whose step is data": with_value("x", "lr_schedulers", 0, "step"),
    "scheduler with an optimizer": with_value({}, "lr_schedulers", 0, "optimizer"),
    "scheduler that is text": with_value("x", "lr_schedulers", 0),
    "counters in words": with_value("many", "lightgen", "progress", "global_step"),
    "no counters at all": with_value(1, "lightgen", "progress"),
    "random state of one byte": with_value(
        torch.zeros(1, dtype=torch.uint8), "lightgen", "rng", "torch"
    ),
    "no random state": without("lightgen", "rng", "torch"),
    "random state in words": with_value("x", "lightgen", "rng", "python"),
    "metrics in words": with_value("x", "lightgen", "callback_metrics"),
    "sums of an unknown kind": with_value(
        [{"hook": "training_step"}], "lightgen", "train_metrics"
    ),
    "callback of ours in words": with_value("x", "callbacks", "EarlyStopping"),
}


def _hparams(**values: Any) -> Callable[[Content], Any]:
    return with_value({**values, **BY_CONFIG}, "hyper_parameters")


_POPEN = {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", "x"]}}

# Refused by `load_from_checkpoint` of a module.
NAMES: dict[str, Callable[[Content], Any]] = {
    "loaded class": _hparams(part=_POPEN),
    "class nobody imported": _hparams(part={"class_path": "evil_module.Evil"}),
    "inside a list": _hparams(part=[{"a": (_POPEN,)}]),
    "inside its arguments": _hparams(
        part={"class_path": "torch.nn.Sequential", "init_args": {"args": [_POPEN]}}
    ),
    "inside further arguments": _hparams(
        part={"class_path": "torch.nn.Identity", "dict_kwargs": {"x": _POPEN}}
    ),
    "as text": _hparams(part="evil_module.Evil"),
    "as the text of a loaded class": _hparams(part="torch.nn.Identity"),
    "as JSON in text": _hparams(part=json.dumps(_POPEN)),
    "as YAML in text": _hparams(part="class_path: evil_module.Evil"),
    "short name": _hparams(part={"class_path": "Identity"}),
    "number for a class": _hparams(part={"class_path": 5}),
    "function": _hparams(function="os.system"),
    "function nobody imported": _hparams(function="evil_module.evil"),
    "type": _hparams(kind="evil_module.Evil"),
    "the module's class": _hparams(_class_path="evil_module.Evil"),
    "the module's class, loaded": _hparams(_class_path="subprocess.Popen"),
    "the module's class, no text": _hparams(_class_path=["x"]),
}

YAML = {
    "object": "width: !!python/object/apply:os.system ['touch x']\n",
    "name": "width: !!python/name:os.system\n",
    "module": "width: !!python/module:evil_module\n",
    "new": "width: !!python/object/new:subprocess.Popen [[touch, x]]\n",
    "laughs": "a: &a [l,l,l,l,l,l,l,l,l,l]\n"
    + "".join(
        f"{n}: &{n} [{','.join([f'*{p}'] * 10)}]\n"
        for p, n in zip("abcdefghi", "bcdefghij", strict=True)
    ),
    "deep": "width: " + "[" * 5000 + "\n",
    "itself": "width: &a [*a]\n",
    "no mapping": "- 1\n",
    "no text": "width: \x00\n",
    "class": "_instantiator: lightning.pytorch.cli.instantiate_module\n"
    "part:\n  class_path: evil_module.Evil\n",
}


def evil_module(folder: Path) -> None:
    """Put a module in `folder` that must never be imported."""
    text = f"{TOUCH}\nclass Evil: pass\ndef evil(): pass\n"
    (folder / "evil_module.py").write_text(text)


def write(content: Any, path: Path) -> None:
    """Save what may be nested deeper than Python likes."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        torch.save(content, path)
    finally:
        sys.setrecursionlimit(limit)
