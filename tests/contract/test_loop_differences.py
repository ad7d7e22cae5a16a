"""Where the loops, a resume and the timing of callbacks differ on purpose, on both packages."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from recording import OURS, REFERENCE, data, memory_logger, quiet_trainer, small_module
from torch.utils.data import DataLoader, Dataset, IterableDataset

pytestmark = pytest.mark.filterwarnings("ignore")


class Rows(IterableDataset[torch.Tensor]):
    """Six rows without a length."""

    def __iter__(self) -> Any:
        return iter(torch.ones(6, 4))


def callback(namespace: str, **hooks: Any) -> Any:
    base = importlib.import_module(namespace).Callback
    return type("Drawn", (base,), hooks)()


def logging_module(namespace: str) -> Any:
    class Module(small_module(namespace)):  # type: ignore[misc]
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = super().training_step(batch, batch_idx)
            self.log("loss", loss, on_step=False, on_epoch=True)
            return loss

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("value", float(batch_idx), on_step=True, on_epoch=False)

    return Module()


def saved_by_hook(namespace: str, hook: str, path: Path, **flags: Any) -> Path:
    """Return a checkpoint that a callback's hook has written in the first epoch."""

    def save(callback: Any, trainer: Any, *args: Any) -> None:
        trainer.save_checkpoint(path)

    trainer = quiet_trainer(
        namespace,
        max_epochs=1,
        callbacks=[callback(namespace, **{hook: save})],
        **flags,
    )
    trainer.fit(logging_module(namespace), data(), data(4))
    return path


def test_sanity_check_after_a_resume(tmp_path: Path) -> None:
    def checks(namespace: str) -> int:
        def count(callback: Any, trainer: Any, *args: Any) -> None:
            seen.append(trainer.current_epoch)

        seen: list[int] = []
        path = saved_by_hook(namespace, "on_fit_end", tmp_path / f"{namespace}.ckpt")
        watcher = callback(namespace, on_sanity_check_start=count)
        trainer = quiet_trainer(namespace, max_epochs=2, callbacks=[watcher])
        trainer.fit(logging_module(namespace), data(), data(4), ckpt_path=path)
        return len(seen)

    assert checks(REFERENCE) == 1
    assert checks(OURS) == 0


def rows_after_a_resume(namespace: str, hook: str, path: Path) -> list[Any]:
    saved_by_hook(namespace, hook, path)
    logger = memory_logger(namespace)
    flags = {"max_epochs": 2, "num_sanity_val_steps": 0, "logger": logger}
    trainer = quiet_trainer(namespace, **flags)
    trainer.fit(logging_module(namespace), data(), data(4), ckpt_path=path)
    rows: list[Any] = logger.rows
    return rows


def test_resume_from_the_end_hook_of_an_epoch(tmp_path: Path) -> None:
    def epochs(namespace: str) -> list[float]:
        path = tmp_path / f"{namespace}.ckpt"
        rows = rows_after_a_resume(namespace, "on_train_epoch_end", path)
        return [values["epoch"] for _, values in rows if "loss" in values]

    assert epochs(REFERENCE) == [1]
    assert epochs(OURS) == [0, 1]


def test_axis_of_evaluated_batches_after_a_resume(tmp_path: Path) -> None:
    def axis(namespace: str) -> list[int]:
        path = tmp_path / f"{namespace}.ckpt"
        rows = rows_after_a_resume(namespace, "on_fit_end", path)
        return [step for step, values in rows if "value" in values]

    assert axis(REFERENCE) == [0, 1]
    assert axis(OURS) == [2, 3]


def test_metrics_after_a_resume(tmp_path: Path) -> None:
    def names(namespace: str) -> list[str]:
        def keep(callback: Any, trainer: Any, *args: Any) -> None:
            seen.extend(sorted(trainer.callback_metrics))

        seen: list[str] = []
        path = saved_by_hook(namespace, "on_fit_end", tmp_path / f"{namespace}.ckpt")
        watcher = callback(namespace, on_train_start=keep)
        flags = {"max_epochs": 2, "num_sanity_val_steps": 0, "callbacks": [watcher]}
        trainer = quiet_trainer(namespace, **flags)
        trainer.fit(logging_module(namespace), data(), data(4), ckpt_path=path)
        return seen

    assert names(REFERENCE) == []
    assert names(OURS) == ["loss"]


def test_order_of_a_shuffled_loader_after_a_resume(tmp_path: Path) -> None:
    def order(namespace: str, resumed: bool) -> list[float]:
        class Module(small_module(namespace)):  # type: ignore[misc]
            def training_step(self, batch: Any, batch_idx: int) -> Any:
                seen.append(float(batch.sum()))
                return super().training_step(batch, batch_idx)

        seen: list[float] = []
        path = tmp_path / f"{namespace}.ckpt"
        torch.manual_seed(1)
        for epochs in (1, 2) if resumed else (2,):
            trainer = quiet_trainer(namespace, max_epochs=epochs)
            ckpt_path = path if epochs == 2 and resumed else None
            trainer.fit(Module(), data(shuffle=True), ckpt_path=ckpt_path)
            trainer.save_checkpoint(path)
            torch.manual_seed(5)
        return seen

    assert order(REFERENCE, resumed=True) != order(REFERENCE, resumed=False)
    assert order(OURS, resumed=True) == order(OURS, resumed=False)


def test_opening_of_a_reloaded_loader() -> None:
    def opened(namespace: str) -> int:
        class Counting:
            def __len__(self) -> int:
                return 1

            def __iter__(self) -> Any:
                seen.append(1)
                return iter([torch.ones(2, 4)])

        seen: list[int] = []
        module = small_module(namespace)()
        module.train_dataloader = Counting
        flags = {"max_epochs": 3, "reload_dataloaders_every_n_epochs": 1}
        quiet_trainer(namespace, **flags).fit(module)
        return len(seen)

    assert opened(REFERENCE) == 8
    assert opened(OURS) == 3


def test_limit_beyond_the_end_of_an_iterable_loader() -> None:
    def validations(namespace: str) -> int:
        def count(callback: Any, trainer: Any, *args: Any) -> None:
            seen.append(1)

        seen: list[int] = []
        trainer = quiet_trainer(
            namespace,
            max_epochs=1,
            limit_train_batches=5,
            num_sanity_val_steps=0,
            callbacks=[callback(namespace, on_validation_start=count)],
        )
        loader = DataLoader(Rows(), batch_size=2)
        trainer.fit(small_module(namespace)(), loader, data(4))
        return len(seen)

    assert validations(REFERENCE) == 0
    assert validations(OURS) == 1


def test_numbers_of_batches_after_another_entry_point() -> None:
    def batches(namespace: str) -> Any:
        trainer, module = (
            quiet_trainer(namespace, max_epochs=1),
            small_module(namespace)(),
        )
        trainer.fit(module, data(), data(4))
        trainer.test(module, data(4), verbose=False)
        return trainer.num_val_batches

    assert batches(REFERENCE) == [2]
    assert batches(OURS) == []


def test_numbers_of_batches_before_the_first_validation() -> None:
    def batches(namespace: str) -> list[Any]:
        def look(callback: Any, trainer: Any, *args: Any) -> None:
            seen.append(trainer.num_val_batches)

        seen: list[Any] = []
        trainer = quiet_trainer(
            namespace,
            max_epochs=3,
            check_val_every_n_epoch=2,
            num_sanity_val_steps=0,
            callbacks=[callback(namespace, on_train_epoch_start=look)],
        )
        trainer.fit(small_module(namespace)(), data(), data(4))
        return seen

    assert batches(REFERENCE) == [[], [], [2]]
    assert batches(OURS) == [[2], [2], [2]]


def test_metrics_of_several_loaders_in_the_sanity_check() -> None:
    def keys(namespace: str, **flags: Any) -> list[str]:
        def look(callback: Any, trainer: Any, *args: Any) -> None:
            seen.append(sorted(trainer.callback_metrics))

        seen: list[list[str]] = []
        module = small_module(namespace)()
        module.validation_step = lambda batch, batch_idx, dataloader_idx=0: module.log(
            "value", 1.0
        )
        watcher = callback(namespace, on_validation_epoch_end=look)
        trainer = quiet_trainer(namespace, max_epochs=1, callbacks=[watcher], **flags)
        trainer.fit(module, data(), [data(4), data(4)])
        return seen[0]

    both = ["value/dataloader_idx_0", "value/dataloader_idx_1"]
    assert keys(REFERENCE, num_sanity_val_steps=0) == both
    assert keys(REFERENCE) == []
    assert keys(OURS) == both


def test_estimated_steps_of_an_iterable_loader() -> None:
    def estimate(namespace: str) -> float:
        trainer = quiet_trainer(namespace, max_epochs=1)
        module = small_module(namespace)()
        trainer.fit(module, DataLoader(Rows(), batch_size=2))
        steps: float = trainer.estimated_stepping_batches
        return steps

    assert estimate(REFERENCE) == -1
    assert estimate(OURS) == float("inf")


def fit_with_checkpoints(
    namespace: str, module: Any, folder: Path, flags: dict[str, Any], **arguments: Any
) -> list[Path]:
    """Return the files that a fit of two epochs of four batches leaves."""
    callbacks = importlib.import_module(f"{namespace}.pytorch.callbacks")
    made = callbacks.ModelCheckpoint(folder / namespace, **arguments)
    trainer = quiet_trainer(
        namespace, max_epochs=2, enable_checkpointing=True, callbacks=[made], **flags
    )
    trainer.fit(module, data())
    return sorted((folder / namespace).glob("*.ckpt"))


def test_last_checkpoint_of_an_epoch_whose_score_is_not_kept(tmp_path: Path) -> None:
    def last_epoch(namespace: str) -> int:
        module = logging_module(namespace)
        module.on_train_epoch_end = lambda: module.log(
            "score", float(module.current_epoch)
        )
        arguments = {"monitor": "score", "mode": "min", "save_last": True}
        files = fit_with_checkpoints(namespace, module, tmp_path, {}, **arguments)
        (last,) = (path for path in files if path.stem == "last")
        epoch: int = torch.load(last)["epoch"]
        return epoch

    assert last_epoch(REFERENCE) == 0
    assert last_epoch(OURS) == 1


def test_steps_between_checkpoints_by_hand(tmp_path: Path) -> None:
    def steps(namespace: str) -> list[str]:
        class Module(small_module(namespace)):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.automatic_optimization = False

            def training_step(self, batch: Any, batch_idx: int) -> None:
                for optimizer in self.optimizers():
                    optimizer.step()

            def configure_optimizers(self) -> Any:
                return [torch.optim.SGD(self.parameters(), lr=0.1) for _ in range(2)]

        arguments = {"every_n_train_steps": 3, "save_top_k": -1, "filename": "{step}"}
        files = fit_with_checkpoints(namespace, Module(), tmp_path, {}, **arguments)
        return [path.stem for path in files]

    # Two steps a batch: 2, 4, 6, ...
    assert steps(REFERENCE) == ["step=12", "step=6"]
    assert steps(OURS) == ["step=10", "step=12", "step=16", "step=4", "step=6"]


def test_checkpoints_of_a_fit_that_never_validates(tmp_path: Path) -> None:
    def number(namespace: str) -> int:
        module, flags = logging_module(namespace), {"check_val_every_n_epoch": 2}
        return len(fit_with_checkpoints(namespace, module, tmp_path, flags))

    assert number(REFERENCE) == 0
    assert number(OURS) == 1


def test_state_of_callbacks_after_evaluating_a_checkpoint(tmp_path: Path) -> None:
    def waited(namespace: str) -> int:
        callbacks = importlib.import_module(f"{namespace}.pytorch.callbacks")
        stopping = callbacks.EarlyStopping("loss", patience=9, min_delta=9.0)
        trainer = quiet_trainer(namespace, max_epochs=3, callbacks=[stopping])
        module, path = logging_module(namespace), tmp_path / f"{namespace}.ckpt"
        module.on_train_epoch_start = lambda: trainer.save_checkpoint(path)
        trainer.fit(module, data())
        trainer.validate(module, data(4), ckpt_path=path, verbose=False)
        count: int = stopping.wait_count
        return count

    assert waited(REFERENCE) == 1
    assert waited(OURS) == 2


def test_values_of_a_hook_that_runs_twice_in_a_batch() -> None:
    def total(namespace: str) -> float:
        class Module(small_module(namespace)):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.automatic_optimization = False

            def training_step(self, batch: Any, batch_idx: int) -> None:
                for _ in range(2):
                    self.manual_backward(self.layer(batch).mean())

            def on_before_backward(self, loss: Any) -> None:
                self.log("once", 1.0)

            def on_after_backward(self) -> None:
                self.log("times", 1.0, on_step=False, on_epoch=True, reduce_fx="sum")

        trainer = quiet_trainer(namespace, max_epochs=1)
        trainer.fit(Module(), data())
        return float(trainer.callback_metrics["times"])

    # Four batches.
    assert total(REFERENCE) == 7
    assert total(OURS) == 8


class Drawing(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.rand(4)


@pytest.mark.parametrize("workers", [False, True])
def test_random_numbers_in_workers(
    workers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(variable, "0")  # so that it is as before afterwards

    def drawn(namespace: str) -> torch.Tensor:
        importlib.import_module(namespace).seed_everything(3, workers=workers)
        seen: list[torch.Tensor] = []
        module = small_module(namespace)()
        given = module.training_step
        module.training_step = lambda b, batch_idx: (seen.append(b), given(b, 0))[1]
        loader = DataLoader(Drawing(), 2, num_workers=1)
        quiet_trainer(namespace, max_epochs=1).fit(module, loader)
        return seen[0]

    # Rows are of one worker; what it drew depends on its seed alone.
    assert torch.equal(drawn(OURS), drawn(REFERENCE)) is not workers
    assert torch.equal(drawn(OURS), drawn(OURS))
