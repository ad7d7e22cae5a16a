"""Real checkpoint files of either package, read and continued by the other."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from recording import OURS, REFERENCE, data, quiet_trainer, small_module
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import StepLR

BOTH_WAYS = [(OURS, REFERENCE), (REFERENCE, OURS)]

pytestmark = pytest.mark.filterwarnings("ignore")


def model_class(namespace: str) -> type[Any]:
    class Model(small_module(namespace)):  # type: ignore[misc]
        def __init__(self, lr: float = 0.1, width: int = 3, names: Any = ("a",)):
            super().__init__()
            self.save_hyperparameters()
            self.head = torch.nn.Linear(1, width)
            self.seen: list[tuple[int, int, int]] = []
            self.restored = None

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.seen.append((self.current_epoch, batch_idx, self.global_step))
            loss = self.head(self.layer(batch)).pow(2).mean()
            self.log("loss", loss, on_step=True, on_epoch=True)
            return loss

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val_loss", self.head(self.layer(batch)).pow(2).mean())

        def configure_optimizers(self) -> Any:
            optimizer = Adam(self.parameters(), lr=self.hparams.lr)
            return [optimizer], [StepLR(optimizer, 1, gamma=0.5)]

        def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            checkpoint["mine"] = {"n": 5}

        def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            self.restored = checkpoint["mine"]

    return Model


def callbacks(namespace: str, folder: Path) -> list[Any]:
    module = importlib.import_module(f"{namespace}.pytorch.callbacks")
    return [
        module.EarlyStopping("val_loss", patience=9),
        module.ModelCheckpoint(folder, monitor="val_loss", save_last=True),
    ]


def fit(
    namespace: str, module: Any, folder: Path, extra: Any = (), **flags: Any
) -> Any:
    ckpt_path = flags.pop("ckpt_path", None)
    trainer = quiet_trainer(
        namespace,
        **{
            "callbacks": [*callbacks(namespace, folder), *extra],
            "enable_checkpointing": True,
            **flags,
        },
    )
    trainer.fit(module, data(), data(4), ckpt_path=ckpt_path)
    return trainer


@pytest.mark.parametrize(("writer", "reader"), BOTH_WAYS)
def test_weights_and_hyperparameters_load(
    writer: str, reader: str, tmp_path: Path
) -> None:
    written = model_class(writer)(lr=0.01, width=5)
    trainer = fit(writer, written, tmp_path, max_epochs=2)
    for path in (tmp_path / "last.ckpt", trainer.checkpoint_callback.best_model_path):
        loaded = model_class(reader).load_from_checkpoint(path)
        assert dict(loaded.hparams) == {"lr": 0.01, "width": 5, "names": ("a",)}
        assert loaded.restored == {"n": 5}
    last = model_class(reader).load_from_checkpoint(tmp_path / "last.ckpt", lr=0.5)
    assert last.hparams.lr == 0.5
    for name, weights in written.state_dict().items():
        assert torch.equal(last.state_dict()[name], weights)


@pytest.mark.parametrize("kind", ["dict", "Namespace"])
def test_our_whole_configuration_loads_there(kind: str, tmp_path: Path) -> None:
    from argparse import Namespace

    def configured(namespace: str) -> type[Any]:
        class Configured(small_module(namespace)):  # type: ignore[misc]
            def __init__(self, config: Any) -> None:
                super().__init__()
                self.save_hyperparameters(config)
                self.rate = config["lr"] if isinstance(config, dict) else config.lr

        return Configured

    made = {"dict": dict, "Namespace": Namespace}[kind](lr=0.3)
    fit(OURS, configured(OURS)(made), tmp_path, max_epochs=0).save_checkpoint(
        tmp_path / "x.ckpt"
    )
    assert configured(REFERENCE).load_from_checkpoint(tmp_path / "x.ckpt").rate == 0.3


@pytest.mark.parametrize(("writer", "reader"), BOTH_WAYS)
def test_weights_alone_load(writer: str, reader: str, tmp_path: Path) -> None:
    trainer = fit(writer, model_class(writer)(), tmp_path, max_epochs=1)
    trainer.save_checkpoint(tmp_path / "weights.ckpt", weights_only=True)
    assert model_class(reader).load_from_checkpoint(tmp_path / "weights.ckpt")


def save_at(namespace: str, hook: str, occurrence: int, path: Path) -> Any:
    """Return a callback that saves when a hook is called for the n-th time."""
    callback = importlib.import_module(namespace).Callback()
    calls = []

    def save(trainer: Any, *args: Any) -> None:
        if not trainer.sanity_checking:
            calls.append(hook)
            if len(calls) == occurrence:
                trainer.save_checkpoint(path)

    setattr(callback, hook, save)
    return callback


MOMENTS: dict[str, tuple[str, int, tuple[int, int, int]]] = {
    "end of a training epoch": ("on_train_epoch_end", 1, (1, 0, 4)),
    "end of a validation": ("on_validation_end", 1, (1, 0, 4)),
    "last batch of an epoch": ("on_train_batch_end", 4, (1, 0, 4)),
    "second epoch": ("on_train_epoch_end", 2, (2, 0, 8)),
    "inside an epoch": ("on_train_batch_end", 6, (1, 2, 6)),
}


@pytest.mark.parametrize(("writer", "reader"), BOTH_WAYS)
@pytest.mark.parametrize("moment", MOMENTS)
def test_fit_goes_on_at_the_right_epoch_and_step(
    moment: str, writer: str, reader: str, tmp_path: Path
) -> None:
    hook, occurrence, first = MOMENTS[moment]
    path = tmp_path / "x.ckpt"
    extra = [save_at(writer, hook, occurrence, path)]
    fit(writer, model_class(writer)(), tmp_path / "w", extra, max_epochs=2)
    module = model_class(reader)()
    trainer = fit(reader, module, tmp_path / "r", max_epochs=4, ckpt_path=path)
    assert module.seen[0] == first
    assert len(module.seen) == 16 - first[2]
    assert (trainer.current_epoch, trainer.global_step) == (4, 16)
    assert module.restored == {"n": 5}


@pytest.mark.parametrize(("writer", "reader"), BOTH_WAYS)
@pytest.mark.parametrize(
    "flags", [{"max_epochs": 2}, {"max_epochs": 9, "max_steps": 6}]
)
def test_finished_fit_goes_on_for_longer(
    flags: dict[str, int], writer: str, reader: str, tmp_path: Path
) -> None:
    trainer = fit(writer, model_class(writer)(), tmp_path / "w", **flags)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    module = model_class(reader)()
    again = fit(
        reader, module, tmp_path / "r", max_epochs=3, ckpt_path=tmp_path / "x.ckpt"
    )
    assert module.seen[0] == (2, 0, trainer.global_step)
    assert len(module.seen) == 4
    assert again.current_epoch == 3


@pytest.mark.parametrize(("writer", "reader"), BOTH_WAYS)
def test_continued_weights_equal_an_uninterrupted_fit(
    writer: str, reader: str, tmp_path: Path
) -> None:
    whole = model_class(reader)()
    fit(reader, whole, tmp_path / "whole", max_epochs=3)
    fit(writer, model_class(writer)(), tmp_path / "w", max_epochs=1)
    module = model_class(reader)()
    trainer = fit(
        reader,
        module,
        tmp_path / "r",
        max_epochs=3,
        ckpt_path=tmp_path / "w" / "last.ckpt",
    )
    for name, weights in whole.state_dict().items():
        assert torch.equal(module.state_dict()[name], weights), name
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.1 * 0.5**3)


@pytest.mark.parametrize(("writer", "reader"), BOTH_WAYS)
def test_callbacks_take_their_state_over(
    writer: str, reader: str, tmp_path: Path
) -> None:
    first = fit(writer, model_class(writer)(), tmp_path, max_epochs=2)
    score = first.early_stopping_callback.best_score
    best = first.checkpoint_callback.best_model_path
    states: list[Any] = []

    callback = importlib.import_module(reader).Callback()
    callback.on_train_start = lambda trainer, module: states.append(
        (
            trainer.early_stopping_callback.best_score.clone(),
            trainer.checkpoint_callback.best_model_path,
        )
    )
    fit(
        reader,
        model_class(reader)(),
        tmp_path,
        [callback],
        max_epochs=3,
        ckpt_path=tmp_path / "last.ckpt",
    )
    assert torch.equal(states[0][0], score)
    assert states[0][1] == best


@pytest.mark.parametrize(("writer", "reader"), BOTH_WAYS)
@pytest.mark.parametrize("method", ["validate", "test", "predict"])
def test_evaluation_loads_the_weights(
    method: str, writer: str, reader: str, tmp_path: Path
) -> None:
    written = model_class(writer)()
    fit(writer, written, tmp_path, max_epochs=1)
    module = model_class(reader)()
    run = getattr(quiet_trainer(reader), method)
    run(module, data(), ckpt_path=tmp_path / "last.ckpt")
    assert torch.equal(module.layer.weight, written.layer.weight)


@pytest.mark.parametrize(("writer", "reader"), BOTH_WAYS)
def test_manual_optimization_goes_on(writer: str, reader: str, tmp_path: Path) -> None:
    def manual(namespace: str) -> Any:
        class Manual(small_module(namespace)):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.automatic_optimization = False

            def training_step(self, batch: Any, batch_idx: int) -> None:
                for optimizer in self.optimizers():
                    optimizer.zero_grad()
                    self.manual_backward(self.layer(batch).pow(2).mean())
                    optimizer.step()

            def validation_step(self, batch: Any, batch_idx: int) -> None:
                self.log("val_loss", self.layer(batch).pow(2).mean())

            def configure_optimizers(self) -> Any:
                return [SGD([self.layer.weight], 0.1), Adam([self.layer.bias])]

        return Manual()

    fit(writer, manual(writer), tmp_path / "w", max_epochs=1)
    trainer = fit(
        reader,
        manual(reader),
        tmp_path / "r",
        max_epochs=2,
        ckpt_path=tmp_path / "w" / "last.ckpt",
    )
    assert (trainer.current_epoch, trainer.global_step) == (2, 16)


@pytest.mark.parametrize("missing", ["loops", "callbacks", "lightgen"])
def test_our_reader_needs_none_of_the_optional_keys(
    missing: str, tmp_path: Path
) -> None:
    fit(OURS, model_class(OURS)(), tmp_path / "w", max_epochs=1)
    content = torch.load(tmp_path / "w" / "last.ckpt", weights_only=True)
    del content[missing]
    content.pop("lightgen", None)
    torch.save(content, tmp_path / "x.ckpt")
    trainer = fit(
        OURS,
        model_class(OURS)(),
        tmp_path / "r",
        max_epochs=2,
        ckpt_path=tmp_path / "x.ckpt",
    )
    assert trainer.global_step == 8
