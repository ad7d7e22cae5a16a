"""Small things that once went wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import Small, fitted, numbers
from torch.utils.data import DataLoader, IterableDataset

from lightgen_runtime import Trainer
from lightgen_runtime.loops.feed import Feed
from lightgen_runtime.strategies import SingleDeviceStrategy
from lightgen_runtime.utilities.exceptions import MisconfigurationException

QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def test_sum_of_a_tensor_that_changes_in_place() -> None:
    class Counter(Small):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(()))

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.count += 1
            options: dict[str, Any] = {"on_step": False, "on_epoch": True}
            self.log("total", self.count, reduce_fx="sum", **options)
            self.log("least", self.count, reduce_fx="min", **options)
            return super().training_step(batch, batch_idx)

    trainer = fitted(Counter(), max_epochs=1)
    batches = int(trainer.num_training_batches)
    assert trainer.callback_metrics["total"] == sum(range(1, batches + 1))
    assert trainer.callback_metrics["least"] == 1


def test_max_steps_holds_when_a_batch_takes_many_steps() -> None:
    class Greedy(Small):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> None:
            for _ in range(5):
                self.optimizers().step()  # type: ignore[union-attr]

    trainer = Trainer(**QUIET, max_steps=10, max_epochs=-1)
    trainer.fit(Greedy(), DataLoader(torch.randn(40, 4), batch_size=2))
    assert trainer.global_step == 10


class Stream(IterableDataset[torch.Tensor]):
    """Six batches of two, without a length."""

    def __iter__(self) -> Any:
        return iter(torch.ones(12, 4))


def test_limit_beyond_the_end_of_a_stream_still_ends_its_epoch() -> None:
    validations: list[int] = []

    class Counting(Small):
        def on_validation_start(self) -> None:
            validations.append(self.global_step)

    trainer = Trainer(
        **QUIET,
        max_epochs=2,
        limit_train_batches=100,
        accumulate_grad_batches=4,
        num_sanity_val_steps=0,
    )
    stream = DataLoader(Stream(), batch_size=2)
    trainer.fit(Counting(), stream, DataLoader(torch.ones(2, 4)))
    assert trainer.global_step == 4
    assert validations == [2, 4]


class Liar:
    """A loader that has less than it says."""

    def __len__(self) -> int:
        return 9

    def __iter__(self) -> Any:
        return iter(torch.ones(3, 2, 4))


def test_loader_shorter_than_its_length_is_an_error_beside_other_processes() -> None:
    class Two(SingleDeviceStrategy):
        world_size = 2  # type: ignore[assignment]

        def all_gather(self, tensor: Any) -> Any:  # type: ignore[override]
            return torch.stack([tensor, tensor])

    feed = Feed(Liar(), 9, None)
    feed.read_together(Two())
    with pytest.raises(MisconfigurationException, match="Correct its `__len__`"):
        list(feed.batches(feed.open()))


def test_loader_shorter_than_its_length_is_reported() -> None:
    with pytest.warns(UserWarning, match="length of 9 batches but ended after 3"):
        Trainer(**QUIET, max_epochs=1).fit(Small(), Liar())


def test_loaders_replace_the_datamodule_of_the_last_run() -> None:
    trainer = fitted(Small())
    assert trainer.test(dataloaders=numbers(), verbose=False)


def test_optimizer_that_needs_its_closure_gets_it() -> None:
    class Sharpness(torch.optim.SGD):
        def step(self, closure: Any) -> Any:  # type: ignore[override]
            loss = closure()
            super().step()
            return loss

    class Module(Small):
        def configure_optimizers(self) -> Any:
            return Sharpness(self.parameters(), lr=0.1)

    assert fitted(Module(), max_epochs=1).global_step > 0


def test_closure_that_is_never_called_is_an_error() -> None:
    class Module(Small):
        def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
            pass

    with pytest.raises(MisconfigurationException, match="did not call its closure"):
        fitted(Module(), max_epochs=1)


def test_extra_state_is_stored_as_data(tmp_path: Path) -> None:
    class Extra(torch.nn.Linear):
        def get_extra_state(self) -> Any:
            return {"where": Path("a/b")}

        def set_extra_state(self, state: Any) -> None:
            self.where = state["where"]

    class Module(Small):
        def __init__(self) -> None:
            super().__init__()
            self.extra = Extra(1, 1)

    trainer = fitted(Module(), max_epochs=1)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    assert Module.load_from_checkpoint(tmp_path / "x.ckpt").extra.where == "a/b"


def test_strategy_is_torn_down_after_an_error() -> None:
    class Failing(Small):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            raise ValueError("no")

    trainer = Trainer(**QUIET, max_epochs=1)
    ended: list[str] = []
    trainer.strategy.teardown = lambda: ended.append("x")  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="no"):
        trainer.fit(Failing(), DataLoader(torch.ones(4, 4)))
    assert ended == ["x"]


def test_logged_view_does_not_keep_its_base() -> None:
    class Module(Small):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.log("first", torch.randn(1000)[0])
            return super().training_step(batch, batch_idx)

    trainer = Trainer(**QUIET, max_epochs=1, log_every_n_steps=1000)
    trainer.fit(Module(), DataLoader(torch.ones(8, 4)))
    assert trainer.callback_metrics["first"].untyped_storage().nbytes() == 4


@pytest.mark.parametrize("first", [torch.ones(()), torch.ones(1)])
@pytest.mark.parametrize("on_epoch", [False, True])
def test_value_may_change_its_shape_but_not_its_size(
    first: torch.Tensor, on_epoch: bool
) -> None:
    class Module(Small):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            value = first if batch_idx == 0 else torch.ones(1)
            if batch_idx == 2:
                value = torch.ones(3)
            self.log("x", value, on_step=True, on_epoch=on_epoch)
            return super().training_step(batch, batch_idx)

    with pytest.raises(MisconfigurationException, match=r"shape \(3,\)"):
        Trainer(**QUIET, max_epochs=1).fit(Module(), DataLoader(torch.ones(8, 4)))


def test_log_dict_takes_positional_options() -> None:
    class Module(Small):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.log_dict({"x": 1.0}, True)
            return super().training_step(batch, batch_idx)

    trainer = fitted(Module(), max_epochs=1)
    assert trainer.progress_bar_metrics["x"] == 1.0


def test_batch_hook_without_loader_number_is_explained() -> None:
    class Module(Small):
        def on_validation_batch_end(
            self, outputs: Any, batch: Any, batch_idx: int
        ) -> None: ...

        def validation_step(
            self, batch: Any, batch_idx: int, dataloader_idx: int = 0
        ) -> None: ...

    loaders = [DataLoader(torch.ones(2, 4)), DataLoader(torch.ones(2, 4))]
    Trainer(**QUIET).validate(Module(), loaders[0], verbose=False)
    with pytest.raises(MisconfigurationException, match="Add it as the last argument"):
        Trainer(**QUIET).validate(Module(), loaders, verbose=False)


def test_module_of_the_other_package_is_recognised() -> None:
    lightning = pytest.importorskip("lightning")
    with pytest.raises(MisconfigurationException, match="change its import as well"):
        Trainer(**QUIET).validate(lightning.LightningModule())
