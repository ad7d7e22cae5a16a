"""Content that no run has written costs an error with a remedy, not a traceback."""

from __future__ import annotations

import json
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from small_runs import Small, assert_says, loader, message_of, quiet

from lightgen_runtime.callbacks import ModelCheckpoint
from lightgen_runtime.core.named_classes import already_loaded
from lightgen_runtime.io import TorchCheckpointIO
from lightgen_runtime.io.store import MANIFEST, entry_of, newest_valid, reconcile
from lightgen_runtime.loops import own_generators, worker_states
from lightgen_runtime.utilities import atomic_write, seed
from lightgen_runtime.utilities.exceptions import CheckpointFormatError

FAR = 10**9


def save(path: Path, **content: Any) -> Path:
    torch.save({"state_dict": {"w": torch.ones(1)}, **content}, path)
    return path


def fit(folder: Path, epochs: int = 1, **more: Any) -> ModelCheckpoint:
    keeper = ModelCheckpoint(folder, every_n_train_steps=2)
    trainer = quiet(
        max_epochs=epochs, callbacks=keeper, enable_checkpointing=True, **more
    )
    trainer.fit(Small(), loader(), ckpt_path=None)
    return keeper


# ---- neighbours in the folder ----

NEIGHBOURS: dict[str, dict[str, Any]] = {
    "states in a mapping": {"optimizer_states": {"adam": {}}, "lr_schedulers": 3},
    "counters in tensors": {"epoch": torch.tensor(3), "global_step": torch.ones(2)},
    "a record that is none": {"lightgen": {"record": [1], "optimizers": {"a": 1}}},
    "a record of others": {
        "lightgen": {"record": {"role": torch.ones(2), "score": []}}
    },
    "classes that are none": {
        "optimizer_states": [{}],
        "lightgen": {"optimizers": [5]},
    },
}


@pytest.mark.parametrize("content", NEIGHBOURS.values(), ids=NEIGHBOURS)
def test_foreign_neighbour_is_listed(content: dict[str, Any], tmp_path: Path) -> None:
    path = save(tmp_path / "foreign.ckpt", **content)
    json.dumps(entry_of(torch.load(path), path))
    (tmp_path / "bad.ckpt").write_bytes(b"xx")
    assert_says(
        message_of(TorchCheckpointIO().load_checkpoint, tmp_path / "bad.ckpt"),
        "not a PyTorch file",
        "foreign.ckpt",
    )
    assert list(reconcile(tmp_path)) == ["foreign.ckpt"]
    assert fit(tmp_path).best_model_path


ENTRY = {
    **{"bytes": 2, "sha256": None, "saved_at": "2026", "weights_only": False},
    **{"kept_by": None, "role": None, "score": None},
}
MANIFESTS: dict[str, Any] = {
    "a list": [],
    "an entry that is none": {"bad.ckpt": 5},
    "a size in words": {"bad.ckpt": {**ENTRY, "bytes": "x"}},
    "a time in numbers": {"bad.ckpt": {**ENTRY, "saved_at": 3}},
    "a score in words": {"bad.ckpt": {**ENTRY, "score": "abc"}},
    "a step in words": {"bad.ckpt": {**ENTRY, "step": "abc"}},
}


@pytest.mark.parametrize("entries", MANIFESTS.values(), ids=MANIFESTS)
def test_manifest_never_ends_a_save(entries: Any, tmp_path: Path) -> None:
    content = {"format": 1, "checkpoints": entries}
    (tmp_path / MANIFEST).write_text(json.dumps(content))
    (tmp_path / "bad.ckpt").write_bytes(b"xx")
    name = Path(fit(tmp_path).best_model_path).name
    assert list(reconcile(tmp_path)) == [name]


def test_manifest_that_is_nested_without_end_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text("[" * 100_000)
    save(tmp_path / "a.ckpt")
    assert list(reconcile(tmp_path)) == ["a.ckpt"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs links")
def test_links_to_nothing_are_not_listed(tmp_path: Path) -> None:
    for name in ("a", "gone", "loop"):
        save(tmp_path / f"{name}.ckpt")
    assert len(reconcile(tmp_path)) == 3
    for name, target in (("gone", "nothing"), ("loop", "loop.ckpt")):
        (tmp_path / f"{name}.ckpt").unlink()
        (tmp_path / f"{name}.ckpt").symlink_to(target)
    assert list(reconcile(tmp_path)) == ["a.ckpt"]
    assert newest_valid(tmp_path, weights_only=True) == str(tmp_path / "a.ckpt")


# ---- what the file itself holds ----


def altered(folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    path = Path(fit(folder / "former", max_steps=2).best_model_path)
    content = torch.load(path)
    change(content)
    torch.save(content, folder / "altered.ckpt")
    return folder / "altered.ckpt"


def own(key: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda content: content["lightgen"].update({key: value})


def in_callbacks(**values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda content: [c.update(values) for c in content["callbacks"].values()]


POSITION = {"readers": [], "read": [], "generators": []}
ALTERED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a position that is a number": own("loader", {"train": [5]}),
    "no positions": own("loader", [5]),
    "readers that are numbers": own(
        "loader", {"train": [{**POSITION, "readers": [5]}]}
    ),
    "batches that are none": own("loader", {"train": [{**POSITION, "read": 5}]}),
    "no random states": lambda content: content["lightgen"].pop("rng"),
    "a path that is a number": in_callbacks(best_model_path=5),
    "a score that is none": in_callbacks(best_k_models={"a": "b"}),
}


@pytest.mark.parametrize("change", ALTERED.values(), ids=ALTERED)
def test_altered_content_is_named(
    change: Callable[[dict[str, Any]], Any], tmp_path: Path
) -> None:
    path = altered(tmp_path, change)
    keeper = ModelCheckpoint(tmp_path / "former", every_n_train_steps=2)
    trainer = quiet(max_epochs=2, callbacks=keeper, enable_checkpointing=True)
    with pytest.raises(CheckpointFormatError, match=r"cannot be used: \w+Error"):
        trainer.fit(Small(), loader(), ckpt_path=path)


def test_name_in_a_file_asks_no_object(monkeypatch: pytest.MonkeyPatch) -> None:
    here = sys.modules[__name__]
    monkeypatch.setattr(here, "PAIR", torch.ones(2), raising=False)
    assert already_loaded(f"{__name__}.PAIR.nothing") is None


def test_archive_that_only_torch_can_list_is_not_read(tmp_path: Path) -> None:
    path = save(tmp_path / "plain.ckpt", zeros=torch.zeros(2**20))
    bomb = tmp_path / "bomb.ckpt"
    with (
        zipfile.ZipFile(path) as source,
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for record in source.infolist():
            archive.writestr(record.filename, source.read(record))
    content = bytearray(bomb.read_bytes())
    position = -1
    while (position := content.find(b"PK\x01\x02", position + 1)) >= 0:
        content[position + 6] = 99  # the version that is needed to unpack it
    bomb.write_bytes(content)
    assert torch.load(bomb)["zeros"].numel() == 2**20
    assert_says(message_of(TorchCheckpointIO().load_checkpoint, bomb), "damaged")
    path.unlink()
    assert reconcile(tmp_path) == {}


# ---- generators ----


def test_position_behind_the_words_of_a_generator_is_refused() -> None:
    states = seed.collect_rng_states()
    name, words, _, *rest = states["numpy"]
    for changed in ((name, words, FAR, *rest), (name, words[:5], 3, *rest)):
        with pytest.raises(ValueError, match="624 words"):
            seed.set_rng_states({**states, "numpy": changed})
    packed = worker_states._packed_numpy() or b""
    for bad in (FAR, -1):
        moved = struct.pack("<i", bad) + packed[4:]
        with pytest.raises(ValueError, match="624 words"):
            worker_states._set((None, None, moved))
    for generator in (
        numpy.random.Generator(numpy.random.MT19937(0)),
        numpy.random.RandomState(0),
    ):
        (state,) = own_generators.states_of([generator])
        inner = {"key": torch.tensor(state["state"]["key"].astype("int64")), "pos": FAR}
        with pytest.raises(ValueError, match="624 words"):
            own_generators.restore([generator], [{**state, "state": inner}])
    philox = numpy.random.Generator(numpy.random.Philox(0))
    (state,) = own_generators.states_of([philox])
    with pytest.raises(ValueError, match="4 words"):
        own_generators.restore([philox], [{**state, "buffer_pos": -FAR}])


def test_random_states_of_more_devices_than_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: dict[int, Any] = {}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(
        torch.cuda, "set_rng_state", lambda state, device: given.update({device: state})
    )
    states = {**seed.collect_rng_states(include_cuda=False), "torch.cuda": ["a", "b"]}
    with pytest.warns(UserWarning, match="2 CUDA devices were saved, and there are 1"):
        seed.set_rng_states(states)
    assert given == {0: "a"}


# ---- file systems ----


@pytest.mark.skipif(sys.platform == "win32", reason="folders are not synced there")
def test_folder_that_cannot_be_synced_costs_no_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = atomic_write.os.fsync

    def refuse(descriptor: int) -> None:
        if Path(f"/dev/fd/{descriptor}").is_dir():
            raise OSError(22, "Invalid argument")
        sync(descriptor)

    monkeypatch.setattr(atomic_write.os, "fsync", refuse)
    with atomic_write.atomic_write(tmp_path / "a") as stream:
        stream.write(b"x")
    assert (tmp_path / "a").read_bytes() == b"x"
