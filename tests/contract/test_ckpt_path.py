"""Which file `ckpt_path` means, in both packages."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from recording import callbacks_of, data, quiet_trainer, small_module

BOTH = ["lightgen_runtime", "lightning"]

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.parametrize("namespace", BOTH),
]


def trainer_in(namespace: str, folder: Path, **flags: Any) -> Any:
    callback = callbacks_of(namespace).ModelCheckpoint(
        folder, **flags.pop("callback", {"save_last": True})
    )
    callbacks = [callback, *flags.pop("callbacks", [])]
    return quiet_trainer(
        namespace,
        **{"max_epochs": 1, "enable_checkpointing": True, "callbacks": callbacks},
        **flags,
    )


def fit(trainer: Any, namespace: str, module: Any = None, **arguments: Any) -> Any:
    trainer.fit(module or small_module(namespace)(), data(), **arguments)
    return trainer


def test_last_of_a_fresh_trainer_is_found_in_the_folder(
    namespace: str, tmp_path: Path
) -> None:
    fit(trainer_in(namespace, tmp_path), namespace)
    trainer = trainer_in(namespace, tmp_path)
    trainer.fit_loop.max_epochs = 2
    fit(trainer, namespace, ckpt_path="last")
    assert (Path(trainer.ckpt_path).name, trainer.global_step) == ("last.ckpt", 8)


@pytest.mark.parametrize("method", ["validate", "test", "predict"])
def test_last_serves_every_stage(namespace: str, method: str, tmp_path: Path) -> None:
    fit(trainer_in(namespace, tmp_path), namespace)
    trainer = trainer_in(namespace, tmp_path)
    module = small_module(namespace)()
    getattr(trainer, method)(module, data(), ckpt_path="last")
    assert Path(trainer.ckpt_path).name == "last.ckpt"


@pytest.mark.parametrize("newest", ["last.ckpt", "last-v1.ckpt", "lastly.ckpt"])
def test_newest_of_several_is_the_last(
    namespace: str, newest: str, tmp_path: Path
) -> None:
    trainer = fit(trainer_in(namespace, tmp_path), namespace)
    names = ["last.ckpt", "last-v1.ckpt", "lastly.ckpt", "other.ckpt", "last.txt"]
    for name in names:
        trainer.save_checkpoint(tmp_path / name)
        os.utime(tmp_path / name, (1, 2 if name == newest else 1))
    os.utime(tmp_path / "other.ckpt", (9, 9))
    os.utime(tmp_path / "last.txt", (9, 9))
    again = trainer_in(namespace, tmp_path)
    fit(again, namespace, ckpt_path="last")
    assert Path(again.ckpt_path).name == newest


def test_fit_without_a_last_one_begins_anew(namespace: str, tmp_path: Path) -> None:
    trainer = trainer_in(namespace, tmp_path / "absent")
    with pytest.warns(UserWarning, match="last"):
        fit(trainer, namespace, ckpt_path="last")
    assert (trainer.ckpt_path, trainer.global_step) == (None, 4)


def test_file_of_an_exception_is_gone_on_from_unasked(
    namespace: str, tmp_path: Path
) -> None:
    def failing(at: int) -> Any:
        class Failing(small_module(namespace)):  # type: ignore[misc]
            def training_step(self, batch: Any, batch_idx: int) -> Any:
                if self.global_step == at:
                    raise ZeroDivisionError
                return super().training_step(batch, batch_idx)

        return Failing()

    def trainer() -> Any:
        kept = callbacks_of(namespace).OnExceptionCheckpoint(tmp_path)
        return quiet_trainer(
            namespace, max_epochs=1, callbacks=[kept], enable_checkpointing=True
        )

    with pytest.raises(ZeroDivisionError):
        fit(trainer(), namespace, failing(2))
    again = trainer()
    fit(again, namespace)
    assert Path(again.ckpt_path).name == "on_exception.ckpt"


def test_checkpoint_that_a_cluster_left(namespace: str, tmp_path: Path) -> None:
    first = fit(trainer_in(namespace, tmp_path / "other"), namespace)
    for number in (2, 10, 9):
        first.save_checkpoint(tmp_path / f"hpc_ckpt_{number}.ckpt")
    trainer = quiet_trainer(namespace, max_epochs=2, default_root_dir=tmp_path)
    fit(trainer, namespace, ckpt_path="hpc")
    assert (Path(trainer.ckpt_path).name, trainer.global_step) == (
        "hpc_ckpt_10.ckpt",
        8,
    )


def test_assigned_path_is_loaded_until_it_is_taken_back(
    namespace: str, tmp_path: Path
) -> None:
    trainer = fit(trainer_in(namespace, tmp_path), namespace)
    path = tmp_path / "mine.ckpt"
    trainer.save_checkpoint(path)
    module = small_module(namespace)()
    trainer.ckpt_path = path
    trainer.test(module, data(), verbose=False)
    assert Path(trainer.ckpt_path) == path
    trainer.validate(module, data(), verbose=False)
    assert Path(trainer.ckpt_path) == path
    trainer.ckpt_path = None
    trainer.test(module, data(), verbose=False)
    assert trainer.ckpt_path is None


def test_path_that_is_passed_outranks_the_assigned_one(
    namespace: str, tmp_path: Path
) -> None:
    trainer = fit(trainer_in(namespace, tmp_path), namespace)
    trainer.save_checkpoint(tmp_path / "mine.ckpt")
    trainer.ckpt_path = "never.ckpt"
    with pytest.warns(UserWarning, match=r"never\.ckpt"):
        trainer.test(
            small_module(namespace)(),
            data(),
            ckpt_path=tmp_path / "mine.ckpt",
            verbose=False,
        )
    assert Path(trainer.ckpt_path).name == "mine.ckpt"


@pytest.mark.parametrize("word", ["best", "hpc", "registry:model"])
def test_word_that_means_no_file_is_an_error(
    namespace: str, word: str, tmp_path: Path
) -> None:
    trainer = quiet_trainer(namespace, default_root_dir=tmp_path)
    with pytest.raises(Exception, match=word):
        trainer.test(small_module(namespace)(), data(), ckpt_path=word)


def test_weights_only_is_the_last_argument_of_every_entry_point(
    namespace: str, tmp_path: Path
) -> None:
    module = small_module(namespace)()
    trainer = trainer_in(namespace, tmp_path)
    path = tmp_path / "mine.ckpt"
    trainer.fit(module, data(), data(4), None, None, True)
    trainer.save_checkpoint(path, None)
    trainer.validate(module, data(), path, False, None, True)
    trainer.test(module, data(), path, False, None, True)
    trainer.predict(module, data(), None, True, path, True)
    assert trainer.ckpt_path is not None
