"""Every row of docs/compat.md that says "different", on both packages.

Each test states what the reference does and what the runtime does instead, so that a row
goes when either changes.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from compat_rows import named_in, rows_of_page
from recording import (
    OURS,
    REFERENCE,
    callbacks_of,
    data,
    module_with,
    quiet_trainer,
    small_module,
)
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import StepLR

from lightgen_runtime.utilities.exceptions import (
    CheckpointFormatError,
    CheckpointNotFoundError,
    EmptyDataError,
    MisconfigurationException,
    NonFiniteLossError,
)

pytestmark = pytest.mark.filterwarnings("ignore")


def fit(namespace: str, module: Any, loader: Any = None, **flags: Any) -> Any:
    ckpt_path = flags.pop("ckpt_path", None)
    trainer = quiet_trainer(namespace, **{"max_epochs": 1, **flags})
    # Not `loader or data()`: an empty loader is false.
    loader = data() if loader is None else loader
    trainer.fit(module, loader, data(4), ckpt_path=ckpt_path)
    return trainer


def saved(namespace: str, path: Path, module: Any = None, **flags: Any) -> Path:
    trainer = fit(namespace, module or small_module(namespace)(), **flags)
    trainer.save_checkpoint(path)
    return path


# ---- results ----


def test_short_accumulation_window() -> None:
    def last_gradient(namespace: str) -> float:
        def on_before_optimizer_step(self: Any, optimizer: Any) -> None:
            seen.append(float(self.weight.grad))

        def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
            return self.weight * 1.0

        seen: list[float] = []
        module = module_with(
            namespace,
            on_before_optimizer_step=on_before_optimizer_step,
            training_step=training_step,
        )
        module.weight = torch.nn.Parameter(torch.zeros(()))
        fit(namespace, module, data(5, 1), accumulate_grad_batches=4)
        return seen[-1]

    assert last_gradient(REFERENCE) == 0.25
    assert last_gradient(OURS) == 1.0


def test_scheduler_frequency() -> None:
    def steps_taken(namespace: str, frequency: int) -> int:
        def configure_optimizers(self: Any) -> Any:
            optimizer = SGD(self.parameters(), lr=0.1)
            self.schedule = StepLR(optimizer, 1)
            config = {"interval": "step", "frequency": frequency}
            return [optimizer], [{"scheduler": self.schedule, **config}]

        module = module_with(namespace, configure_optimizers=configure_optimizers)
        fit(namespace, module, max_epochs=3, accumulate_grad_batches=2)
        last: int = module.schedule.last_epoch
        return last

    # 4 batches and 2 optimizer steps an epoch, 6 steps in all.
    assert steps_taken(REFERENCE, 3) == 0
    assert steps_taken(OURS, 3) == 2


def test_resume_inside_an_epoch(tmp_path: Path) -> None:
    def batches_after_resuming(namespace: str) -> list[float]:
        path = tmp_path / f"{namespace}.ckpt"

        class Save(importlib.import_module(namespace).Callback):  # type: ignore
            def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
                if trainer.global_step == 2:
                    trainer.save_checkpoint(path)

        def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
            seen.append(float(batch.sum()))
            return self.layer(batch).mean()

        fit(namespace, small_module(namespace)(), callbacks=[Save()])
        seen: list[float] = []
        module = module_with(namespace, training_step=training_step)
        fit(namespace, module, ckpt_path=path)
        return seen

    sums = [float(batch.sum()) for batch in data()]
    assert batches_after_resuming(REFERENCE) == sums[:2]
    assert batches_after_resuming(OURS) == sums[2:]


def test_precision_of_logged_numbers() -> None:
    def logged(namespace: str) -> float:
        def validation_step(self: Any, batch: Any, batch_idx: int) -> None:
            self.log("x", 1 / 3)

        module = module_with(namespace, validation_step=validation_step)
        (results,) = quiet_trainer(namespace).validate(module, data(), verbose=False)
        value: float = results["x"]
        return value

    assert abs(logged(REFERENCE) - 1 / 3) > 1e-9
    assert abs(logged(OURS) - 1 / 3) < 1e-15


# ---- errors and endings ----


class Mistake(Exception):
    pass


def test_teardown_after_an_error() -> None:
    def torn_down(namespace: str) -> list[str]:
        def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
            raise Mistake

        calls: list[str] = []
        module = module_with(
            namespace,
            training_step=training_step,
            teardown=lambda self, stage: calls.append(stage),
        )
        with pytest.raises(Mistake):
            fit(namespace, module)
        return calls

    assert torn_down(REFERENCE) == []
    assert torn_down(OURS) == ["fit"]


def test_error_in_clean_up() -> None:
    def raised(namespace: str) -> BaseException:
        class Careless(importlib.import_module(namespace).Callback):  # type: ignore
            def on_exception(self, *args: Any) -> None:
                raise OSError("second")

        def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
            raise Mistake("first")

        module = module_with(namespace, training_step=training_step)
        with pytest.raises((Mistake, OSError)) as caught:
            fit(namespace, module, callbacks=[Careless()])
        return caught.value

    assert isinstance(raised(REFERENCE), OSError)
    ours = raised(OURS)
    assert isinstance(ours, Mistake)
    assert "OSError: second" in str(getattr(ours, "__notes__", []))


def test_interrupt_by_the_keyboard() -> None:
    def raised(namespace: str) -> BaseException:
        def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
            raise KeyboardInterrupt

        with pytest.raises((KeyboardInterrupt, SystemExit)) as caught:
            fit(namespace, module_with(namespace, training_step=training_step))
        return caught.value

    assert isinstance(raised(REFERENCE), SystemExit)
    assert isinstance(raised(OURS), KeyboardInterrupt)


def test_mode_after_an_error_in_validation() -> None:
    def training_after(namespace: str) -> bool:
        def validation_step(self: Any, batch: Any, batch_idx: int) -> None:
            raise Mistake

        module = module_with(namespace, validation_step=validation_step)
        with pytest.raises(Mistake):
            fit(namespace, module)
        training: bool = module.training
        return training

    assert training_after(REFERENCE) is False
    assert training_after(OURS) is True


def test_empty_training_loader() -> None:
    assert fit(REFERENCE, small_module(REFERENCE)(), data(0)).global_step == 0
    with pytest.raises(EmptyDataError):
        fit(OURS, small_module(OURS)(), data(0))


def test_bad_seed() -> None:
    with pytest.raises(ValueError, match="bounds"):
        importlib.import_module(REFERENCE).seed_everything(-1)
    with pytest.raises(MisconfigurationException):
        importlib.import_module(OURS).seed_everything(-1)


def test_early_stopping_without_its_metric() -> None:
    def run(namespace: str) -> None:
        stopping = callbacks_of(namespace).EarlyStopping("never")
        fit(namespace, small_module(namespace)(), callbacks=[stopping])

    with pytest.raises(RuntimeError, match="not available"):
        run(REFERENCE)
    with pytest.raises(MisconfigurationException, match="no metric of that name"):
        run(OURS)


def test_step_of_several_loaders_without_their_number() -> None:
    def run(namespace: str) -> Any:
        trainer = quiet_trainer(namespace)
        loaders = [data(), data()]
        return trainer.test(small_module(namespace)(), loaders, verbose=False)

    with pytest.raises(RuntimeError, match="dataloader_idx"):
        run(REFERENCE)
    assert run(OURS) == [{}, {}]


# ---- saving and loading ----


def test_step_checkpoint_before_its_metric(tmp_path: Path) -> None:
    def files(namespace: str, monitor: str) -> list[str]:
        def validation_step(self: Any, batch: Any, batch_idx: int) -> None:
            self.log("val", batch.mean())

        folder = tmp_path / namespace / monitor
        checkpoint = callbacks_of(namespace).ModelCheckpoint(
            folder, monitor=monitor, every_n_train_steps=3
        )
        module = module_with(namespace, validation_step=validation_step)
        flags = {"callbacks": [checkpoint], "enable_checkpointing": True}
        fit(namespace, module, **flags)
        return sorted(file.name for file in folder.glob("*.ckpt"))

    assert files(REFERENCE, "val") == []
    assert files(OURS, "val") == ["epoch=0-step=4.ckpt"]
    assert files(REFERENCE, "never") == []
    with pytest.raises(MisconfigurationException, match="'never'"):
        files(OURS, "never")


def test_save_on_exception_after_a_broken_loss(tmp_path: Path) -> None:
    def files(namespace: str, error: type[Exception]) -> int:
        def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
            if batch_idx == 2:
                raise error("broken")
            return self.layer(batch).mean()

        folder = tmp_path / namespace / error.__name__
        checkpoint = callbacks_of(namespace).ModelCheckpoint(
            folder, save_on_exception=True
        )
        flags = {"callbacks": [checkpoint], "enable_checkpointing": True}
        module = module_with(namespace, training_step=training_step)
        with pytest.raises(error):
            fit(namespace, module, **flags)
        return len(list(folder.glob("*.ckpt")))

    assert files(REFERENCE, NonFiniteLossError) == 1
    assert files(OURS, NonFiniteLossError) == 0
    assert files(OURS, Mistake) == 1


class Payload:
    """Runs code when it is unpickled freely."""

    ran: list[str]

    def __reduce__(self) -> Any:
        return _run_payload, ()


def _run_payload() -> str:
    Payload.ran.append("ran")
    return "harmless"


def test_code_in_a_file(tmp_path: Path) -> None:
    Payload.ran = []
    path = saved(REFERENCE, tmp_path / "x.ckpt")
    content = torch.load(path, weights_only=False)
    torch.save({**content, "extra": Payload()}, path)
    small_module(REFERENCE).load_from_checkpoint(path, weights_only=False)
    assert Payload.ran == ["ran"]
    with pytest.raises(CheckpointFormatError, match="_run_payload"):
        small_module(OURS).load_from_checkpoint(path, weights_only=False)
    assert Payload.ran == ["ran"]


def with_path(namespace: str) -> type[Any]:
    class WithPath(small_module(namespace)):  # type: ignore[misc]
        def __init__(self, folder: Any = Path("x")) -> None:
            super().__init__()
            self.save_hyperparameters()

    return WithPath


def test_hyperparameters_that_are_not_plain(tmp_path: Path) -> None:
    theirs, ours = with_path(REFERENCE), with_path(OURS)
    path = saved(REFERENCE, tmp_path / "theirs.ckpt", theirs())
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        theirs.load_from_checkpoint(path)
    path = saved(OURS, tmp_path / "ours.ckpt", ours())
    assert ours.load_from_checkpoint(path).hparams.folder == "x"


def test_override_that_is_no_argument(tmp_path: Path) -> None:
    path = saved(REFERENCE, tmp_path / "theirs.ckpt")
    small_module(REFERENCE).load_from_checkpoint(path, typo=1)
    path = saved(OURS, tmp_path / "ours.ckpt")
    with pytest.raises(MisconfigurationException, match="typo"):
        small_module(OURS).load_from_checkpoint(path, typo=1)


def test_damaged_weights(tmp_path: Path) -> None:
    def flip_one_bit(namespace: str) -> Path:
        module = small_module(namespace)()
        path = saved(namespace, tmp_path / f"{namespace}.ckpt", module)
        content = bytearray(path.read_bytes())
        place = content.index(module.layer.weight.detach().numpy().tobytes())
        content[place] ^= 1
        path.write_bytes(content)
        return path

    small_module(REFERENCE).load_from_checkpoint(flip_one_bit(REFERENCE))
    path = flip_one_bit(OURS)
    with pytest.raises(CheckpointFormatError, match="damaged"):
        small_module(OURS).load_from_checkpoint(path)


def test_resume_with_other_optimizers(tmp_path: Path) -> None:
    def resume(namespace: str, configure_optimizers: Any) -> Any:
        path = saved(namespace, tmp_path / f"{namespace}.ckpt")
        module = module_with(namespace, configure_optimizers=configure_optimizers)
        return fit(namespace, module, max_epochs=2, ckpt_path=path)

    def other_kind(self: Any) -> Any:
        return Adam(self.parameters())

    def with_scheduler(self: Any) -> Any:
        optimizer = SGD(self.parameters(), lr=0.1)
        return [optimizer], [StepLR(optimizer, 1)]

    with pytest.raises(KeyError):
        resume(REFERENCE, other_kind)
    assert resume(OURS, other_kind).global_step == 8
    rates = [
        resume(namespace, with_scheduler).optimizers[0].param_groups[0]["lr"]
        for namespace in (REFERENCE, OURS)
    ]
    assert rates == pytest.approx([0.01, 0.001])  # after two epochs


def test_last_checkpoint_that_is_not_there() -> None:
    def run(namespace: str) -> Any:
        trainer, module = quiet_trainer(namespace), small_module(namespace)()
        return trainer.test(module, data(), ckpt_path="last", verbose=False)

    assert run(REFERENCE) == [{}]
    with pytest.raises(CheckpointNotFoundError):
        run(OURS)


# ---- what a person sees and types ----


def test_epochs_in_the_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    def shown(namespace: str, bar: str) -> str:
        bars = [getattr(callbacks_of(namespace), bar)()]
        module = small_module(namespace)()
        fit(namespace, module, callbacks=bars, enable_progress_bar=True)
        captured = capsys.readouterr()
        return (captured.out + captured.err).lower()

    assert "epoch 0" in shown(REFERENCE, "TQDMProgressBar")
    ours = shown(OURS, "PlainProgressBar")
    assert "epoch 1" in ours
    assert "epoch 0" not in ours


def test_abbreviated_options(capsys: pytest.CaptureFixture[str]) -> None:
    def parsed(namespace: str) -> int:
        cli = importlib.import_module(f"{namespace}.pytorch.cli").LightningCLI
        options = {"run": False, "save_config_callback": None}
        arguments = ["--trainer.max_ep=7", "--trainer.logger=false"]
        made = cli(small_module(namespace), args=arguments, **options)
        epochs: int = made.trainer.max_epochs
        return epochs

    assert parsed(REFERENCE) == 7
    with pytest.raises(SystemExit):
        parsed(OURS)
    assert "--trainer.max_ep" in capsys.readouterr().err


# ---- the page itself ----


def test_page_names_one_test_in_each_row_and_every_test() -> None:
    named = [named_in(row) for row in rows_of_page()]
    assert all(len(names) == 1 for names in named)
    files = Path(__file__).parent.glob("test_*differences.py")
    tests = [re.findall(r"^def (test_\w+)", f.read_text(), re.MULTILINE) for f in files]
    shown = {name for names in tests for name in names if "test_page_" not in name}
    assert {name for (name,) in named} == shown
