"""Checkpoints as folders, in one process: what is written is what is read, and safely."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import Small, fitted, loader, quiet
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    Metadata,
    TensorStorageMetadata,
)

from lightgen_runtime.callbacks import ModelCheckpoint
from lightgen_runtime.callbacks.checkpoint_names import link_file
from lightgen_runtime.io import (
    AsyncCheckpointIO,
    DistributedCheckpointIO,
    TorchCheckpointIO,
    consolidate,
)
from lightgen_runtime.io.store import (
    newest_valid,
    read_manifest,
    reconcile,
    verify,
)
from lightgen_runtime.utilities.exceptions import (
    CheckpointFormatError,
    CheckpointMismatchError,
    CheckpointNotFoundError,
    MisconfigurationException,
)


def checkpoint() -> dict[str, Any]:
    big = torch.arange(60.0)
    return {
        "state_dict": {"layer.weight": big.view(6, 10).t(), "layer.bias": big[3:9]},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(3.0)}}}],
        # Two tensors that the same words lead to.
        "a.b": torch.zeros(2),
        "a": {"b": torch.ones(2)},
        "kinds": [
            torch.rand(3).to(torch.bfloat16),
            torch.rand(2, dtype=torch.complex64),
            torch.empty(0, 4),
            torch.tensor([True, False]),
            torch.eye(3).to_sparse(),
        ],
        "plain": {"epoch": 3, "text": "x", "pair": (1, None), "set": {1, 2}, 5: 6.0},
    }


def assert_same(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert (one.dtype, one.shape, one.layout) == (
            other.dtype,
            other.shape,
            other.layout,
        )
        assert torch.equal(one.to_dense(), other.to_dense())
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_same(*pair)
    else:
        assert one == other


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    DistributedCheckpointIO().save_checkpoint(checkpoint(), tmp_path / "x.ckpt")
    return tmp_path / "x.ckpt"


def load(path: Path) -> dict[str, Any]:
    return DistributedCheckpointIO().load_checkpoint(path)


def in_folder(path: Path) -> list[str]:
    """Return what is there beside the manifest."""
    return sorted(file.name for file in path.iterdir() if file.name != "manifest.json")


def refusal_of(path: Path) -> str:
    with pytest.raises(CheckpointFormatError) as caught:
        load(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


# ---- what is written ----


@pytest.mark.parametrize("wrapped", [False, True])
def test_what_is_read_is_what_was_written(wrapped: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    io: Any = DistributedCheckpointIO()
    io = AsyncCheckpointIO(io) if wrapped else io
    torch.manual_seed(0)
    io.save_checkpoint(checkpoint(), tmp_path / "x.ckpt")
    io.teardown()
    torch.manual_seed(0)
    assert_same(io.load_checkpoint(tmp_path / "x.ckpt"), checkpoint())
    assert in_folder(tmp_path) == ["x.ckpt"]


def test_folder_becomes_an_ordinary_file(folder: Path) -> None:
    path = folder.parent / "whole.ckpt"
    consolidate(folder, path)
    assert_same(TorchCheckpointIO().load_checkpoint(path), load(folder))
    assert_same(load(path), load(folder))  # which is read as well


def test_folder_names_no_path_of_the_machine(folder: Path) -> None:
    for path in folder.iterdir():
        assert str(folder.parent).encode() not in path.read_bytes()


def test_folder_is_replaced_and_removed(folder: Path) -> None:
    io = DistributedCheckpointIO()
    io.save_checkpoint({"state_dict": {"w": torch.ones(1)}}, folder)
    assert load(folder)["state_dict"] == {"w": 1.0}
    assert in_folder(folder.parent) == [folder.name]
    io.remove_checkpoint(folder)
    assert list(folder.parent.iterdir()) == []
    io.remove_checkpoint(folder)  # is gone already


def test_ordinary_file_is_replaced_and_removed(tmp_path: Path) -> None:
    io, path = DistributedCheckpointIO(), tmp_path / "x.ckpt"
    path.touch()
    io.save_checkpoint({"state_dict": {}}, path)
    assert load(path) == {"state_dict": {}}
    assert in_folder(tmp_path) == [path.name]
    (tmp_path / "file").touch()
    io.remove_checkpoint(tmp_path / "file")
    assert in_folder(tmp_path) == [path.name]


def test_storage_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match="storage_options"):
        DistributedCheckpointIO().save_checkpoint({}, tmp_path / "x", {"a": 1})


def test_weights_go_back_into_a_module(tmp_path: Path) -> None:
    io = DistributedCheckpointIO()
    module, other = Small(), Small()
    io.save_checkpoint({"state_dict": module.state_dict(), "epoch": 1}, tmp_path / "x")
    with torch.no_grad():
        other.layer.weight.zero_()
    io.load_into(tmp_path / "x", {"state_dict": other.state_dict()})
    assert torch.equal(other.layer.weight, module.layer.weight)
    wrong = {"state_dict": {"layer.weight": torch.zeros(2, 2)}}
    with pytest.raises(CheckpointMismatchError, match=r"\(1, 4\)"):
        io.load_into(tmp_path / "x", wrong)
    with pytest.raises(CheckpointMismatchError, match="none"):
        io.load_into(tmp_path / "x", {"typo": torch.zeros(2, 2)})
    with pytest.raises(CheckpointNotFoundError):
        io.load_into(tmp_path / "y", wrong)


def test_fit_goes_on_from_a_folder(tmp_path: Path) -> None:
    whole = Small()
    fitted(whole, max_epochs=3)

    def part(epochs: int, **more: Any) -> Small:
        module = Small()
        trainer = quiet(
            max_epochs=epochs,
            plugins=AsyncCheckpointIO(DistributedCheckpointIO()),
            callbacks=ModelCheckpoint(tmp_path, save_last=True),
            enable_checkpointing=True,
        )
        trainer.fit(module, loader(), loader(4), **more)
        return module

    part(1)
    assert in_folder(tmp_path) == [
        "epoch=0-step=4.ckpt",
        "last.ckpt",
    ]
    resumed = part(3, ckpt_path="last")
    assert torch.equal(resumed.layer.weight, whole.layer.weight)


def states_of_folders(step: int) -> dict[str, Any]:
    return {"epoch": 0, "global_step": step, "optimizer_states": [], **checkpoint()}


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A folder of two checkpoints, the second being newer, and of what kills have left."""
    for step in (4, 8):
        io, path = DistributedCheckpointIO(), tmp_path / f"{step}.ckpt"
        io.save_checkpoint(states_of_folders(step), path)
    shutil.copytree(tmp_path / "8.ckpt", tmp_path / ".9.ckpt.part")
    shutil.copytree(tmp_path / "8.ckpt", tmp_path / ".10.ckpt.former")
    return tmp_path


def test_folders_are_listed(kept: Path) -> None:
    (kept / "other.ckpt").mkdir()
    entries = reconcile(kept)
    assert list(entries) == ["4.ckpt", "8.ckpt"]
    size = sum(file.stat().st_size for file in (kept / "8.ckpt").iterdir())
    entry = entries["8.ckpt"]
    assert (entry["bytes"], entry["sha256"], entry["step"]) == (size, None, 8)
    assert not entry["weights_only"]
    # It can be made again from the folders alone.
    (kept / "manifest.json").unlink()
    assert reconcile(kept) == entries
    DistributedCheckpointIO().remove_checkpoint(kept / "8.ckpt")
    assert list(read_manifest(kept)) == ["4.ckpt"]


@pytest.mark.parametrize("name", [".metadata", "checkpoint.pt", "__0_0.distcp"])
def test_newest_valid_folder_is_found(name: str, kept: Path) -> None:
    assert newest_valid(kept) == str(kept / "8.ckpt")
    damaged = kept / "8.ckpt" / name
    content = damaged.read_bytes()
    damaged.write_bytes(content[: len(content) // 2])
    assert verify(kept / "8.ckpt") is not None
    assert newest_valid(kept) == str(kept / "4.ckpt")
    damaged.unlink()
    assert verify(kept / "8.ckpt") is not None
    assert newest_valid(kept) == str(kept / "4.ckpt")


def test_best_folders_are_kept_and_gone_on_from(tmp_path: Path) -> None:
    def fit(epochs: int, **more: Any) -> tuple[ModelCheckpoint, Any]:
        keeper = ModelCheckpoint(tmp_path, monitor="step", mode="max", save_top_k=2)
        trainer = quiet(
            max_epochs=epochs,
            plugins=DistributedCheckpointIO(),
            callbacks=keeper,
            enable_checkpointing=True,
        )
        trainer.fit(Small(), loader(), **more)
        return keeper, trainer

    keeper, _ = fit(3)
    names = ["epoch=1-step=8.ckpt", "epoch=2-step=12.ckpt"]
    assert in_folder(tmp_path) == names
    newest = Path(keeper.best_model_path)
    (newest / "checkpoint.pt").unlink()
    # What a kill has left damaged gives way to a whole one, and is no obstacle.
    with pytest.raises(CheckpointFormatError):
        fit(4, ckpt_path=newest)
    keeper, trainer = fit(4, ckpt_path=tmp_path / names[0])
    assert trainer.global_step == 16
    kept = sorted(Path(path).name for path in keeper.best_k_models)
    assert kept == ["epoch=2-step=12.ckpt", "epoch=3-step=16.ckpt"]
    assert in_folder(tmp_path) == [names[0], *kept]  # where it came from stays


def test_reader_of_files_says_what_reads_a_folder(folder: Path) -> None:
    with pytest.raises(CheckpointNotFoundError) as caught:
        TorchCheckpointIO().load_checkpoint(folder)
    assert "DistributedCheckpointIO" in str(caught.value)
    assert "consolidate" in str(caught.value)


# ---- what is damaged ----


@pytest.mark.parametrize("name", [".metadata", "checkpoint.pt", "__0_0.distcp"])
def test_folder_that_lacks_a_file_is_no_checkpoint(name: str, folder: Path) -> None:
    (folder / name).unlink()
    if name == "__0_0.distcp":
        with pytest.raises(FileNotFoundError):
            load(folder)
    else:
        assert name in refusal_of(folder)


def test_nothing_at_the_path_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError):
        load(tmp_path / "x.ckpt")


@pytest.mark.parametrize("into", [False, True])
def test_flipped_bit_is_found(into: bool, folder: Path) -> None:
    path = folder / "__0_0.distcp"
    content = bytearray(path.read_bytes())
    place = bytes(content).index(torch.arange(60.0).numpy().tobytes()[:24])
    content[place + 9] ^= 1
    path.write_bytes(content)
    if not into:
        assert "__0_0.distcp" in refusal_of(folder)
        return
    state = {"state_dict": {"layer.bias": torch.zeros(6)}}
    DistributedCheckpointIO().load_into(folder, state)  # the bit is not among these
    state = {"state_dict": {"layer.weight": torch.zeros(10, 6)}}
    with pytest.raises(CheckpointFormatError, match=r"__0_0\.distcp"):
        DistributedCheckpointIO().load_into(folder, state)


@pytest.mark.parametrize("kept", [0, 10, 1000, -3])
@pytest.mark.parametrize("name", [".metadata", "checkpoint.pt", "__0_0.distcp"])
def test_file_cut_short_is_found(name: str, kept: int, folder: Path) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:kept])
    with pytest.raises(CheckpointFormatError):
        load(folder)


# ---- what is malicious ----


class Runs:
    """Pickled as a call that leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def metadata_of(folder: Path) -> Metadata:
    found = pickle.loads((folder / ".metadata").read_bytes())
    assert isinstance(found, Metadata)
    return found


def rewrite(folder: Path, metadata: Any) -> None:
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))


@pytest.mark.parametrize("place", ["whole", "key", "planner", "storage", "meta"])
def test_code_in_the_metadata_never_runs(place: str, folder: Path) -> None:
    mark = folder / "ran"
    metadata: Any = metadata_of(folder)
    if place == "whole":
        metadata = Runs(mark)
    elif place == "key":
        metadata.state_dict_metadata["x"] = Runs(mark)
    elif place == "planner":
        metadata.planner_data = Runs(mark)
    elif place == "storage":
        metadata.storage_data["x"] = Runs(mark)
    else:
        metadata.storage_meta = Runs(mark)
    rewrite(folder, metadata)
    assert "mkdir" in refusal_of(folder)
    with pytest.raises(CheckpointFormatError):
        DistributedCheckpointIO().load_into(folder, {"a.b": torch.zeros(2)})
    assert not mark.exists()


def test_entry_that_is_a_pickle_itself_is_refused(folder: Path) -> None:
    metadata = metadata_of(folder)
    metadata.state_dict_metadata["a.b"] = BytesStorageMetadata()
    rewrite(folder, metadata)
    assert "BytesStorageMetadata" in refusal_of(folder)


def test_tensor_outside_of_the_folder_is_refused(folder: Path) -> None:
    metadata = metadata_of(folder)
    for where in metadata.storage_data.values():
        where.relative_path = f"../{folder.name}/{where.relative_path}"
    rewrite(folder, metadata)
    assert ".." in refusal_of(folder)


def test_metadata_cannot_change_a_class(folder: Path) -> None:
    # The class itself, then attributes for what lies below on the stack.
    instructions = (
        b"ctorch.distributed.checkpoint.metadata\nTensorStorageMetadata\n"
        b"(N(dV__doc__\nVchanged\nstb."
    )
    (folder / ".metadata").write_bytes(instructions)
    before = TensorStorageMetadata.__doc__
    assert "changes what is no record" in refusal_of(folder)
    assert TensorStorageMetadata.__doc__ == before


def test_other_things_in_the_metadata_are_refused(folder: Path) -> None:
    for other in (3, {"a": 1}, Metadata({"x": 3})):  # type: ignore[dict-item]
        rewrite(folder, other)
        refusal_of(folder)


def test_code_in_the_plain_file_never_runs(folder: Path) -> None:
    torch.save({"state_dict": Runs(folder / "ran")}, folder / "checkpoint.pt")
    with pytest.raises(CheckpointFormatError):
        load(folder)
    assert not (folder / "ran").exists()


# ---- what is interrupted ----

KILLED = """
import os, signal, sys, torch
from lightgen_runtime.io import DistributedCheckpointIO
from lightgen_runtime.io import sharded_folder
from pathlib import Path
def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)
original = Path.rename
def rename(self, target):
    if self.name.endswith(".part"):
        die()
    return original(self, target)
places = {
    "data": (sharded_folder.FileSystemWriter, "finish", die),
    "plain": (sharded_folder, "atomic_write", die),
    "between": (Path, "rename", rename),
    "after": (sharded_folder, "sync_folder", die),
}
torch.set_num_threads(1)
for moment, place in places.items():
    path = Path(sys.argv[1], moment, "last.ckpt")
    DistributedCheckpointIO().save_checkpoint({"state_dict": {"w": 0}}, path)
    child = os.fork()
    if not child:
        setattr(*place)
        DistributedCheckpointIO().save_checkpoint({"state_dict": {"w": 1}}, path)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes to kill")
def test_killed_while_replacing_a_folder(tmp_path: Path) -> None:
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}  # which forks cannot share
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    subprocess.run(command, check=True, env=hidden)
    for moment in ("data", "plain", "between", "after"):
        path = tmp_path / moment / "last.ckpt"
        assert len(list(path.parent.iterdir())) > 1, "it was not killed in between"
        assert load(path)["state_dict"] == {"w": int(moment == "after")}
        # The next save leaves nothing of it.
        DistributedCheckpointIO().save_checkpoint({"state_dict": {"w": 2}}, path)
        assert load(path)["state_dict"] == {"w": 2}
        assert in_folder(path.parent) == [path.name]


def test_link_is_replaced_and_removed_but_not_followed(tmp_path: Path) -> None:
    files, state = DistributedCheckpointIO(), {"state_dict": {}}
    files.save_checkpoint(state, tmp_path / "a.ckpt")
    for target in ("a.ckpt", "gone.ckpt"):
        link = tmp_path / f"to {target}"
        link.symlink_to(target)
        for _ in range(2):
            files.save_checkpoint(state, link)
        assert link.is_dir()
        assert not link.is_symlink()
        shutil.rmtree(link)
        link.symlink_to(target)
        files.remove_checkpoint(link)
    assert in_folder(tmp_path) == ["a.ckpt"]
    load(tmp_path / "a.ckpt")


def test_link_takes_the_place_of_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, last = DistributedCheckpointIO(), tmp_path / "last.ckpt"
    for number, path in enumerate((last, tmp_path / "new.ckpt")):
        files.save_checkpoint({"state_dict": {"w": number}}, path)
    link_file(tmp_path / "new.ckpt", last)
    assert load(last)["state_dict"] == {"w": 1}

    def refuse(self: Path, target: str) -> None:
        raise OSError("not here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    link_file(tmp_path / "new.ckpt", last)
    assert not last.is_symlink()
    assert load(last)["state_dict"] == {"w": 1}
    assert in_folder(tmp_path) == ["last.ckpt", "new.ckpt"]


def test_last_is_found_where_its_replacement_was_killed(tmp_path: Path) -> None:
    def fit(epochs: int) -> Any:
        trainer = quiet(
            max_epochs=epochs,
            plugins=DistributedCheckpointIO(),
            callbacks=ModelCheckpoint(tmp_path, save_last=True, save_top_k=0),
            enable_checkpointing=True,
        )
        trainer.fit(Small(), loader(), ckpt_path="last")
        return trainer

    with pytest.warns(UserWarning, match="begins anew"):
        fit(1)
    (tmp_path / "last.ckpt").rename(tmp_path / ".last.ckpt.former")
    for left in (".old.ckpt.part", ".new.ckpt.part"):
        (tmp_path / left).mkdir()
    os.utime(tmp_path / ".old.ckpt.part", (0, 0))
    assert fit(2).ckpt_path == str(tmp_path / "last.ckpt")
    assert in_folder(tmp_path) == [".new.ckpt.part", "last.ckpt"]


def test_huge_tensors_are_read_and_tricks_are_not(tmp_path: Path) -> None:
    count = 17 * 2**20
    state = {"state_dict": {"w": torch.ones(count)}}
    DistributedCheckpointIO().save_checkpoint(state, tmp_path / "a.ckpt")
    assert int(load(tmp_path / "a.ckpt")["state_dict"]["w"].sum()) == count
    # An expanded tensor has no memory of its own, and gets some when it is saved.
    trick = torch.ones(1).expand(count)
    module = Small()
    module.register_buffer("wide", trick)
    trainer = fitted(module)
    trainer.save_checkpoint(tmp_path / "b.ckpt")
    read = TorchCheckpointIO().load_checkpoint(tmp_path / "b.ckpt")
    assert int(read["state_dict"]["wide"].sum()) == count


def test_failed_write_leaves_the_folder_as_it_was(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightgen_runtime.io import sharded_folder

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sharded_folder.FileSystemWriter, "write_data", full)
    with pytest.raises(OSError, match="No space left"):
        DistributedCheckpointIO().save_checkpoint({"state_dict": {}}, folder)
    assert in_folder(folder.parent) == [folder.name]
    load(folder)


def test_memory_of_consolidating_is_that_of_the_state(tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("reads /proc")
    size = 64 * 2**20
    state = {"state_dict": {str(i): torch.ones(size // 32) for i in range(8)}}
    DistributedCheckpointIO().save_checkpoint(state, tmp_path / "x")
    program = f"""
import torch
from lightgen_runtime.io import consolidate, DistributedCheckpointIO
from lightgen_runtime.io import sharded_folder
def peak():
    status = open("/proc/self/status").read()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])
small = {{"state_dict": {{"w": torch.ones(3)}}}}
DistributedCheckpointIO().save_checkpoint(small, {str(tmp_path / "small")!r})
consolidate({str(tmp_path / "small")!r}, {str(tmp_path / "small.ckpt")!r})
before = peak()
consolidate({str(tmp_path / "x")!r}, {str(tmp_path / "x.ckpt")!r})
print(peak() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert int(done.stdout.split()[-1]) < 1.25 * size
