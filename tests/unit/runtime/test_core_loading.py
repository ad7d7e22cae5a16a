"""Loading checkpoints into modules and runs, and the refusals on the way."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import Small, fitted, loader, quiet, variant
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import StepLR

from lightgen_runtime.utilities.exceptions import (
    CheckpointFormatError,
    CheckpointMismatchError,
    CheckpointNotFoundError,
    MisconfigurationException,
)


class Sized(Small):
    def __init__(self, width: int, lr: float = 0.1) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Sequential(
            torch.nn.Linear(4, width), torch.nn.Linear(width, 1)
        )


class Forgetful(Small):
    def __init__(self, width: int) -> None:
        super().__init__()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    fitted(Sized(3)).save_checkpoint(tmp_path / "x.ckpt")
    return tmp_path / "x.ckpt"


def test_loaded_module_equals_the_saved_one(tmp_path: Path) -> None:
    model = Sized(5)
    fitted(model).save_checkpoint(tmp_path / "x.ckpt")
    loaded = Sized.load_from_checkpoint(tmp_path / "x.ckpt")
    assert loaded.training
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight)


def test_hyperparameters_may_come_from_a_file(path: Path, tmp_path: Path) -> None:
    hparams = tmp_path / "hparams.yaml"
    hparams.write_text("width: 3\nlr: 0.9\n")
    assert Sized.load_from_checkpoint(path, hparams_file=hparams).hparams.lr == 0.9
    with pytest.raises(CheckpointNotFoundError, match=r"no hyperparameter file at"):
        Sized.load_from_checkpoint(path, hparams_file=tmp_path / "none.yaml")
    hparams.write_text("5")
    with pytest.raises(CheckpointFormatError, match="no mapping"):
        Sized.load_from_checkpoint(path, hparams_file=hparams)


def test_argument_that_was_not_saved_is_asked_for(tmp_path: Path) -> None:
    fitted(Forgetful(3)).save_checkpoint(tmp_path / "x.ckpt")
    with pytest.raises(
        MisconfigurationException,
        match=r"'width'.*Pass the value.*save_hyperparameters",
    ):
        Forgetful.load_from_checkpoint(tmp_path / "x.ckpt")
    assert Forgetful.load_from_checkpoint(tmp_path / "x.ckpt", width=3)


def test_override_that_is_no_argument_is_an_error(path: Path) -> None:
    with pytest.raises(MisconfigurationException, match=r"widht.*Did you mean 'width'"):
        Sized.load_from_checkpoint(path, widht=3)


def test_error_of_the_users_init_passes_through(path: Path) -> None:
    class Failing(Sized):
        def __init__(self, width: int, lr: float = 0.1) -> None:
            raise TypeError("mine")

    with pytest.raises(TypeError, match="mine"):
        Failing.load_from_checkpoint(path)


def test_shapes_that_do_not_fit_are_listed(path: Path) -> None:
    with pytest.raises(CheckpointMismatchError) as caught:
        Sized.load_from_checkpoint(path, width=7)
    message = str(caught.value)
    assert str(path) in message
    assert "layer.0.weight" in message
    assert "[3, 4]" in message
    assert "[7, 4]" in message


@pytest.mark.parametrize("by", ["argument", "attribute"])
def test_names_that_do_not_fit_may_be_skipped(path: Path, by: str) -> None:
    class Larger(Sized):
        def __init__(self, width: int, lr: float = 0.1) -> None:
            super().__init__(width, lr)
            self.head = torch.nn.Linear(1, 1)
            if by == "attribute":
                self.strict_loading = False

    if by == "argument":
        with pytest.raises(
            CheckpointMismatchError, match=r"(?s)head\.weight.*strict=False"
        ):
            Larger.load_from_checkpoint(path, strict=True)
        Larger.load_from_checkpoint(path, strict=False)
    else:
        Larger.load_from_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (None, CheckpointNotFoundError),
        (b"", CheckpointFormatError),
        (b"not a checkpoint", CheckpointFormatError),
        ({"weights": 1}, CheckpointFormatError),
    ],
)
@pytest.mark.parametrize("method", ["load_from_checkpoint", "fit", "test"])
def test_file_that_is_no_checkpoint(
    content: Any, error: Any, method: str, tmp_path: Path
) -> None:
    file = tmp_path / "x.ckpt"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        torch.save(content, file)
    run = getattr(quiet(), method, None)
    read = run and partial(run, Small(), loader(), ckpt_path=file)
    with pytest.raises(error, match=r"x\.ckpt"):
        (read or partial(Small.load_from_checkpoint, file))()


def test_state_dict_of_another_framework_loads_as_weights(tmp_path: Path) -> None:
    weights = OrderedDict(Small().state_dict())
    torch.save({"state_dict": weights}, tmp_path / "x.ckpt")
    assert Small.load_from_checkpoint(tmp_path / "x.ckpt")


# ---- resuming ----


def test_weights_alone_do_not_resume_a_fit_but_serve_a_test(tmp_path: Path) -> None:
    file = tmp_path / "x.ckpt"
    fitted(Small()).save_checkpoint(file, weights_only=True)
    with pytest.raises(
        CheckpointMismatchError, match=r"weights only.*`load_from_checkpoint`"
    ):
        quiet(max_epochs=2).fit(Small(), loader(), ckpt_path=file)
    assert quiet().test(Small(), loader(), ckpt_path=file, verbose=False)


def two_groups(self: Any) -> Any:
    return SGD([{"params": [self.layer.weight]}, {"params": [self.layer.bias]}], 0.1)


def scheduled(self: Any) -> Any:
    optimizer = SGD(self.parameters(), 0.1)
    return [optimizer], [StepLR(optimizer, 1)]


def two_by_hand(self: Any) -> Any:
    self.automatic_optimization = False
    return [SGD([self.layer.weight], 0.1), SGD([self.layer.bias], 0.1)]


def adam(self: Any) -> Any:
    return Adam(self.parameters())


@pytest.mark.parametrize(
    ("configure", "found"),
    [
        (two_by_hand, r"1 optimizer\(s\).*returns 2"),
        (two_groups, "optimizer 0.*SGD.*parameter group"),
    ],
)
def test_other_optimizers_do_not_resume(
    configure: Any, found: str, tmp_path: Path
) -> None:
    fitted(Small()).save_checkpoint(tmp_path / "x.ckpt")
    module, trainer = variant(configure_optimizers=configure), quiet(max_epochs=2)
    with pytest.raises(CheckpointMismatchError, match=found) as caught:
        trainer.fit(module, loader(), ckpt_path=tmp_path / "x.ckpt")
    # There is such a way from Python, and one from the command line.
    assert "`load_from_checkpoint`, or `--resume weights`" in str(caught.value)


@pytest.mark.parametrize(
    ("configure", "found"),
    [
        (scheduled, "scheduler 0 is StepLR now.*starts anew"),
        (adam, "optimizer 0 is Adam now and was SGD.*starts anew"),
    ],
)
def test_another_class_starts_anew_and_all_else_goes_on(
    configure: Any, found: str, tmp_path: Path
) -> None:
    fitted(Small()).save_checkpoint(tmp_path / "x.ckpt")
    module, trainer = variant(configure_optimizers=configure), quiet(max_epochs=2)
    with pytest.warns(UserWarning, match=found):
        trainer.fit(module, loader(), ckpt_path=tmp_path / "x.ckpt")
    assert trainer.global_step == 8


def test_checkpoint_saved_after_a_test_still_resumes(tmp_path: Path) -> None:
    model = Small()
    trainer = fitted(model)
    trainer.test(model, loader(), verbose=False)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    resumed = quiet(max_epochs=2)
    resumed.fit(Small(), loader(), ckpt_path=tmp_path / "x.ckpt")
    assert resumed.global_step == 8


def test_unknown_callback_state_is_warned_about(tmp_path: Path) -> None:
    from lightgen_runtime.callbacks import EarlyStopping

    trainer = fitted(Small(), callbacks=EarlyStopping("val_loss"))
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    resumed = quiet(max_epochs=2)
    with pytest.warns(UserWarning, match=r"does not have: .*EarlyStopping"):
        resumed.fit(Small(), loader(), loader(4), ckpt_path=tmp_path / "x.ckpt")


def test_hook_sees_the_checkpoint_before_its_weights_are_loaded(tmp_path: Path) -> None:
    class Renamed(Small):
        def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            weights = checkpoint["state_dict"]
            checkpoint["state_dict"] = {
                name.replace("old.", "layer."): value for name, value in weights.items()
            }

    torch.save(
        {
            "state_dict": {
                "old.weight": torch.ones(1, 4),
                "old.bias": torch.ones(1),
            }
        },
        tmp_path / "x.ckpt",
    )
    loaded = Renamed.load_from_checkpoint(tmp_path / "x.ckpt")
    assert torch.equal(loaded.layer.weight, torch.ones(1, 4))
    model = Renamed()
    quiet().test(model, loader(), ckpt_path=tmp_path / "x.ckpt", verbose=False)
    assert torch.equal(model.layer.bias, torch.ones(1))
