"""What a resumed fit takes over of its folder, and what it leaves alone."""

from __future__ import annotations

import io
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import loader, quiet, variant

from lightgen_runtime.callbacks import ModelCheckpoint
from lightgen_runtime.io import TorchCheckpointIO
from lightgen_runtime.io.store import read_manifest
from lightgen_runtime.utilities.atomic_write import atomic_write, sweep_temporaries


def ranked(folder: Path, **flags: Any) -> ModelCheckpoint:
    return ModelCheckpoint(folder, **{"monitor": "score", "save_top_k": 2, **flags})


def fit(
    scores: Sequence[float],
    *callbacks: ModelCheckpoint,
    ckpt_path: Any = None,
    epochs: int | None = None,
    **flags: Any,
) -> None:
    """Train for as many epochs of four steps as there are scores, one for each epoch."""

    def validation_step(self: Any, batch: Any, batch_idx: int) -> None:
        self.log("score", scores[self.trainer.current_epoch])

    trainer = quiet(
        callbacks=list(callbacks),
        enable_checkpointing=True,
        max_epochs=epochs or len(scores),
        num_sanity_val_steps=0,
        **flags,
    )
    module = variant(validation_step=validation_step)
    trainer.fit(module, loader(), loader(2), ckpt_path=ckpt_path)


def steps(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.ckpt"))


def name(step: int, version: str = "") -> str:
    return f"epoch={step // 4 - 1}-step={step}{version}.ckpt"


def keep(path: Path, elsewhere: Path) -> Path:
    return Path(shutil.copy2(path, elsewhere / path.name))


def test_files_from_behind_the_point_of_resuming_are_ranked(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    fit([3.0, 1.0], ranked(folder))
    source = keep(folder / name(4), tmp_path)
    fit([3.0, 1.0, 0.5, 2.0], ranked(folder), ckpt_path=folder / name(8))
    assert steps(folder) == [name(8), name(12)]
    # As after a kill, the state that is loaded is older than the files that are there.
    callback = ranked(folder)
    fit([3.0, 4.0, 4.0, 0.1], callback, ckpt_path=source)
    assert steps(folder) == [name(12), name(16)]
    scores = {Path(p).name: float(s) for p, s in callback.best_k_models.items()}
    assert scores == {name(12): 0.5, name(16): pytest.approx(0.1)}
    assert set(read_manifest(folder)) == set(steps(folder))


def test_epoch_that_is_trained_again_replaces_its_file(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    fit([3.0], ranked(folder, save_top_k=-1))
    source = keep(folder / name(4), tmp_path)
    fit([3.0, 1.0, 2.0], ranked(folder, save_top_k=-1), ckpt_path=source)
    callback = ranked(folder, save_top_k=-1)
    fit([3.0, 1.5, 2.5], callback, ckpt_path=source)
    assert steps(folder) == [name(4), name(8), name(12)]
    assert sorted(map(float, callback.best_k_models.values())) == [1.5, 2.5, 3.0]


def test_files_of_other_fits_and_callbacks_stay(tmp_path: Path) -> None:
    fit([2.0, 1.0], ranked(tmp_path))  # another fit
    other, again = (
        ModelCheckpoint(tmp_path, filename="every-{step}", save_top_k=-1)
        for _ in range(2)
    )
    fit([3.0, 4.0], ranked(tmp_path), other)
    before = set(steps(tmp_path))
    assert before == {
        *(name(4), name(8), name(4, "-v1"), name(8, "-v1")),
        *("every-step=4.ckpt", "every-step=8.ckpt"),
    }
    (tmp_path / "foreign.ckpt").write_text("not ours")
    callback = ranked(tmp_path, save_top_k=1)
    fit([3.0, 4.0, 0.5], callback, again, ckpt_path=tmp_path / name(8, "-v1"))
    assert set(steps(tmp_path)) == {
        *(before - {name(4, "-v1")}),
        *(name(12), "every-step=12.ckpt", "foreign.ckpt"),
    }
    assert callback.best_model_path == str(tmp_path / name(12))


def test_copies_of_own_files_stay(tmp_path: Path) -> None:
    callback = ranked(tmp_path, save_top_k=1, save_last=True)
    fit([2.0, 1.0], callback)
    best, last = Path(callback.best_model_path), Path(callback.last_model_path)
    for source, copied in ((best, "good.ckpt"), (last, "backup.ckpt")):
        shutil.copy2(source, tmp_path / copied)
    again = ranked(tmp_path, save_top_k=1, save_last=True)
    fit([2.0, 1.0, 3.0], again, ckpt_path=last)
    assert again.best_model_path == str(best)
    assert {p.name for p in tmp_path.glob("*.ckpt")} == {
        *(best.name, last.name, "good.ckpt", "backup.ckpt"),
    }


@pytest.mark.parametrize("top_k", [1, -1])
def test_files_without_a_score(top_k: int, tmp_path: Path) -> None:
    def newest() -> ModelCheckpoint:
        return ModelCheckpoint(tmp_path / "c", save_top_k=top_k, save_last=True)

    folder = tmp_path / "c"
    fit([0.0], newest())
    source = keep(folder / "last.ckpt", tmp_path)
    fit([0.0] * 3, newest(), ckpt_path=source)
    callback = newest()
    # Nothing is trained: all of the files are newer than that.
    fit([0.0] * 4, callback, ckpt_path=source, epochs=1)
    assert callback.best_model_path == str(folder / name(12))
    assert callback.last_model_path == str(folder / "last.ckpt")
    fit([0.0] * 4, newest(), ckpt_path=source)
    all_steps = [name(step) for step in (4, 8, 12, 16)]
    kept = all_steps if top_k == -1 else all_steps[-1:]
    assert steps(folder) == [*kept, "last.ckpt"]


def test_what_a_kill_left_beyond_those_to_keep_goes_with_the_next_save(
    tmp_path: Path,
) -> None:
    folder, aside = tmp_path / "c", tmp_path / "aside"
    aside.mkdir()
    fit([3.0, 2.0], ranked(folder, save_last=True))
    left = keep(folder / name(4), aside)
    fit([3.0, 2.0, 1.0], ranked(folder, save_last=True), ckpt_path=folder / "last.ckpt")
    assert steps(folder) == [name(8), name(12), "last.ckpt"]
    # As if it had been killed before it removed the file, or entered the newest one.
    keep(left, folder)
    (folder / "manifest.json").unlink()
    callback = ranked(folder, save_last=True)
    fit([3.0, 2.0, 1.0, 9.0], callback, ckpt_path=folder / "last.ckpt")
    assert steps(folder) == [name(8), name(12), "last.ckpt"]
    assert callback.kth_best_model_path == str(folder / name(8))


def test_link_to_the_newest_is_taken_over(tmp_path: Path) -> None:
    folder = tmp_path / "c"

    def linked() -> ModelCheckpoint:
        return ModelCheckpoint(folder, save_last="link")

    fit([0.0], linked())
    source = keep(folder / name(4), tmp_path)
    fit([0.0] * 2, linked(), ckpt_path=folder / "last.ckpt")
    callback = linked()
    fit([0.0] * 3, callback, ckpt_path=source)
    assert steps(folder) == [name(12), "last.ckpt"]
    assert (folder / "last.ckpt").resolve().name == name(12)


def test_link_is_not_the_file_that_it_points_to(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    every = ModelCheckpoint(tmp_path / "all", save_top_k=-1)
    fit([0.5, 1.0], ranked(folder, save_last="link", save_top_k=1), every)
    assert (folder / "last.ckpt").resolve().name == name(4)
    callback = ranked(folder, save_last="link", save_top_k=1)
    source = tmp_path / "all" / name(8)
    fit([0.5, 1.0, 2.0], callback, every, ckpt_path=source)
    assert callback.best_model_path == str(folder / name(4))
    assert steps(folder) == [name(4), "last.ckpt"]
    assert callback.last_model_path == str(folder / "last.ckpt")


def test_last_file_never_points_to_itself(tmp_path: Path) -> None:
    def linked() -> ModelCheckpoint:
        return ranked(tmp_path, save_last="link", save_top_k=1)

    scores = [0.5, 1.0, 2.0, 3.0, 4.0]
    fit(scores[:2], linked())
    fit(scores[:3], linked(), ckpt_path=tmp_path / "last.ckpt")
    fit(scores, linked(), ckpt_path=tmp_path / "last.ckpt")
    assert steps(tmp_path) == [name(4), "last.ckpt"]
    last = TorchCheckpointIO().load_checkpoint(tmp_path / "last.ckpt")
    assert last["global_step"] == 20


class Renaming(TorchCheckpointIO):
    """Keeps files that no manifest lists."""

    def save_checkpoint(
        self, checkpoint: Any, path: Any, storage_options: Any = None
    ) -> None:
        with Path(path).open("wb") as stream:
            stream.write(b"own")
            torch.save(checkpoint, stream)

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> Any:
        with Path(path).open("rb") as stream:
            stream.read(3)
            return torch.load(io.BytesIO(stream.read()), weights_only=True)


def test_files_of_another_kind_rotate_after_a_resume(tmp_path: Path) -> None:
    for epochs in (1, 2, 3):
        callback = ModelCheckpoint(tmp_path, save_last=True)
        last = tmp_path / "last.ckpt"
        fit(
            [0.0] * epochs,
            callback,
            ckpt_path=last if last.exists() else None,
            plugins=Renaming(),
        )
        assert steps(tmp_path) == [name(4 * epochs), "last.ckpt"]


def test_ranked_files_that_are_all_gone_are_forgotten(tmp_path: Path) -> None:
    every = ModelCheckpoint(tmp_path / "all", save_top_k=-1)
    fit([0.5], ranked(tmp_path, save_top_k=1), every)
    (tmp_path / name(4)).unlink()
    callback = ranked(tmp_path, save_top_k=1)
    fit([0.5, 0.9], callback, every, ckpt_path=tmp_path / "all" / name(4))
    assert callback.best_model_path == str(tmp_path / name(8))
    assert steps(tmp_path) == [name(8)]


def test_folder_that_was_moved_is_still_its_own(tmp_path: Path) -> None:
    fit([3.0, 2.0], ranked(tmp_path / "old", save_last=True))
    (tmp_path / "old").rename(tmp_path / "new")
    callback = ranked(tmp_path / "new", save_last=True)
    fit([3.0, 2.0, 1.0], callback, ckpt_path=tmp_path / "new/last.ckpt")
    assert steps(tmp_path / "new") == [name(8), name(12), "last.ckpt"]
    assert not (tmp_path / "old").exists()


def test_folder_from_before_there_were_manifests(tmp_path: Path) -> None:
    files = TorchCheckpointIO()
    fit([3.0, 2.0], ranked(tmp_path, save_last=True))
    for path in tmp_path.glob("*.ckpt"):
        content = files.load_checkpoint(path)
        del content["lightgen"]["record"]
        content["lightgen"]["format"] = 1
        files.save_checkpoint(content, path)
    (tmp_path / "manifest.json").unlink()
    (tmp_path / name(4, "-v1")).write_bytes((tmp_path / name(4)).read_bytes())
    callback = ranked(tmp_path, save_last=True)
    fit([3.0, 2.0, 1.0], callback, ckpt_path=tmp_path / "last.ckpt")
    # What its state names is its own, and nothing else.
    assert steps(tmp_path) == [name(4, "-v1"), name(8), name(12), "last.ckpt"]
    assert set(read_manifest(tmp_path)) == set(steps(tmp_path))


def test_ranked_file_that_is_gone_is_forgotten(tmp_path: Path) -> None:
    fit([1.0, 2.0], ranked(tmp_path, save_last=True))
    (tmp_path / name(4)).unlink()
    callback = ranked(tmp_path, save_last=True)
    fit([1.0, 2.0, 3.0], callback, ckpt_path=tmp_path / "last.ckpt")
    assert steps(tmp_path) == [name(8), name(12), "last.ckpt"]
    assert callback.best_model_path == str(tmp_path / name(8))


def test_folders_that_names_make_are_looked_into(tmp_path: Path) -> None:
    def deep() -> ModelCheckpoint:
        return ranked(tmp_path / "c", filename="{epoch}/{step}")

    fit([3.0, 2.0], deep())
    source = keep(tmp_path / "c/epoch=0/step=4.ckpt", tmp_path)
    fit([3.0, 2.0, 1.0], deep(), ckpt_path=source)
    assert sorted(p.name for p in (tmp_path / "c").rglob("*.ckpt")) == [
        "step=12.ckpt",
        "step=8.ckpt",
    ]


def test_start_of_a_fit_sweeps_what_killed_ones_have_left(tmp_path: Path) -> None:
    left = tmp_path / ".last.ckpt.0123abcd.tmp"
    left.write_bytes(b"half")
    others = tmp_path / ".last.ckpt.tmp"
    others.write_bytes(b"not ours")
    fit([1.0], ranked(tmp_path))
    assert not left.exists()
    assert others.exists()


def test_file_that_is_being_written_is_not_swept(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a.ckpt") as stream:
        stream.write(b"content")
        sweep_temporaries(tmp_path)
    assert (tmp_path / "a.ckpt").read_bytes() == b"content"
    assert len(list(tmp_path.iterdir())) == 1


def test_without_locks_only_old_files_are_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "lightgen_runtime.utilities.atomic_write"
    monkeypatch.setattr(f"{module}.try_lock", lambda descriptor: None)
    young, old = tmp_path / ".a.0123abcd.tmp", tmp_path / ".b.0123abcd.tmp"
    for path in (young, old):
        path.write_bytes(b"half")
    yesterday = time.time() - 25 * 3600
    os.utime(old, (yesterday, yesterday))
    sweep_temporaries(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [young.name]


def test_sweep_leaves_no_file_that_a_writer_has_just_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A sweep comes between making the file and locking it.
    module = "lightgen_runtime.utilities.atomic_write"
    answers = iter([False, True])
    monkeypatch.setattr(f"{module}.try_lock", lambda descriptor: next(answers))
    with atomic_write(tmp_path / "a.ckpt") as stream:
        (writing,) = (p for p in tmp_path.iterdir() if stream.name == str(p))
        stream.write(b"content")
    assert not writing.exists()
    assert (tmp_path / "a.ckpt").read_bytes() == b"content"
