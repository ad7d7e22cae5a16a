"""Plugins of one's own are asked for the same things as by the reference."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from recording import OURS, REFERENCE, data, quiet_trainer, small_module
from test_precision import plugin

pytestmark = pytest.mark.filterwarnings("ignore")


def test_own_checkpoint_io_writes_and_reads(tmp_path: Path) -> None:
    def calls(namespace: str) -> list[Any]:
        io = importlib.import_module(f"{namespace}.pytorch.plugins.io")
        log: list[Any] = []

        class Recording(io.TorchCheckpointIO):  # type: ignore[name-defined,misc]
            def save_checkpoint(
                self, checkpoint: Any, path: Any, storage_options: Any = None
            ) -> None:
                log.append(("save", Path(path).name, storage_options))
                super().save_checkpoint(checkpoint, path)

            def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> Any:
                log.append(("load", Path(path).name))
                return super().load_checkpoint(path, *args, **kwargs)

            def remove_checkpoint(self, path: Any) -> None:
                log.append(("remove", Path(path).name))
                super().remove_checkpoint(path)

            def teardown(self) -> None:
                log.append(("teardown",))

        callbacks = importlib.import_module(f"{namespace}.pytorch.callbacks")
        folder = tmp_path / namespace
        trainer = quiet_trainer(
            namespace,
            plugins=[Recording()],
            enable_checkpointing=True,
            callbacks=[callbacks.ModelCheckpoint(folder)],
            max_epochs=3,
        )
        trainer.fit(small_module(namespace)(), data(8))
        trainer.save_checkpoint(folder / "mine.ckpt", storage_options={"a": 1})
        trainer.validate(
            trainer.model, data(4), ckpt_path=folder / "mine.ckpt", verbose=False
        )
        return log

    ours = calls(OURS)
    theirs = calls(REFERENCE)
    ends = ours.index(("teardown",)), theirs.index(("teardown",))
    assert ours[: ends[0]] == theirs[: ends[1]]  # the fit
    after = [[e for e in log if e != ("teardown",)] for log in (ours, theirs)]
    assert after[0] == after[1]
    assert ("save", "mine.ckpt", {"a": 1}) in ours
    assert ("load", "mine.ckpt") in ours


def test_own_precision_is_asked_as_by_the_reference() -> None:
    def calls(namespace: str) -> list[str]:
        from contextlib import contextmanager

        log: list[str] = []

        class Own(plugin(namespace, "Precision")):  # type: ignore[misc]
            precision = "mine"

            def convert_module(self, module: Any) -> Any:
                log.append("convert_module")
                return module

            def convert_input(self, data: Any) -> Any:
                log.append("convert_input")
                return data

            @contextmanager
            def module_init_context(self) -> Any:
                log.append("module_init_context")
                yield

            @contextmanager
            def forward_context(self) -> Any:
                log.append("enter")
                yield
                log.append("leave")

            def clip_gradients(self, *args: Any, **kwargs: Any) -> None:
                log.append("clip_gradients")

            def teardown(self) -> None:
                log.append("teardown")

        def configure_model(self: Any) -> None:
            log.append("configure_model")

        members = {"configure_model": configure_model}
        module = type("Module", (small_module(namespace),), members)()
        trainer = quiet_trainer(
            namespace, plugins=Own(), max_epochs=1, gradient_clip_val=1.0
        )
        trainer.fit(module, data(4), data(4))
        trainer.predict(module, data(4))
        assert trainer.precision == "mine"
        return log

    assert calls(OURS) == calls(REFERENCE)


CONTRADICTIONS = ["flag and plugin", "two of a kind", "not a plugin", "bad name"]


@pytest.mark.parametrize("kind", CONTRADICTIONS)
def test_contradictory_plugins_are_refused_by_both(kind: str) -> None:
    for namespace in (OURS, REFERENCE):
        half, double = (
            plugin(namespace, name)() for name in ("HalfPrecision", "DoublePrecision")
        )
        flags: dict[str, Any] = {
            "flag and plugin": {"precision": "16-true", "plugins": half},
            "two of a kind": {"plugins": [half, double]},
            "not a plugin": {"plugins": ["16-true"]},
            "bad name": {"precision": "16-truth"},
        }[kind]
        with pytest.raises(Exception, match=r"recision|plugins"):
            quiet_trainer(namespace, **flags)
