"""Finding a learning rate and a batch size, and leaving no trace of the search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import Small, loader, numbers, quiet
from torch.utils.data import DataLoader

from lightgen_runtime import Callback, LightningDataModule
from lightgen_runtime.callbacks import BatchSizeFinder, LearningRateFinder
from lightgen_runtime.loggers import CSVLogger
from lightgen_runtime.tuner import Tuner
from lightgen_runtime.tuner.lr_finder import _LRFinder
from lightgen_runtime.utilities.exceptions import MisconfigurationException


class Tunable(Small):
    """Has both values to tune, dropout, a momentum and a buffer that no file holds."""

    def __init__(self, lr: float = 0.1, batch_size: int = 2) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(4, 1)
        self.dropout = torch.nn.Dropout(0.5)
        self.register_buffer("seen", torch.zeros(1), persistent=False)
        self.sizes: list[int] = []
        self.capacity = 10_000

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self._tried(batch)

    def test_step(self, batch: Any, batch_idx: int) -> Any:
        self.log("loss", self._tried(batch))

    def _tried(self, batch: Any) -> Any:
        self.sizes.append(len(batch))
        if len(batch) > self.capacity:
            raise RuntimeError("CUDA error: out of memory")
        self.seen += 1
        loss = self.dropout(self(batch)).pow(2).mean()
        return loss

    def train_dataloader(self) -> Any:
        return DataLoader(numbers(64), self.hparams.batch_size, shuffle=True)

    val_dataloader = test_dataloader = train_dataloader

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr, momentum=0.9)


class Finish(Callback):
    """Keeps what a fit came to."""

    def __init__(self) -> None:
        self.lrs: list[float] = []
        self.epochs: list[int] = []

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        self.lrs.append(trainer.optimizers[0].param_groups[0]["lr"])
        self.epochs.append(trainer.current_epoch)


def trained(*callbacks: Callback, steps: int = 6) -> tuple[torch.Tensor, Finish]:
    torch.manual_seed(5)
    finish, module = Finish(), Tunable()
    trainer = quiet(callbacks=[*callbacks, finish], max_epochs=-1, max_steps=steps)
    trainer.fit(module)
    return module.layer.weight.detach(), finish


@pytest.mark.parametrize(
    "finder",
    [
        LearningRateFinder(num_training_steps=15, update_attr=False),
        BatchSizeFinder(init_val=2, max_trials=1),
    ],
    ids=lambda finder: type(finder).__name__,
)
def test_fit_after_a_search_is_the_fit_without_one(finder: Callback) -> None:
    plain, _ = trained()
    searched, _ = trained(finder)
    assert torch.equal(plain, searched)


def test_search_restores_module_optimizer_and_trainer(tmp_path: Path) -> None:
    module = Tunable()
    module.dropout.eval()
    loading = DataLoader(
        numbers(), 2, shuffle=True, generator=torch.Generator().manual_seed(1)
    )
    seen: dict[str, Any] = {}

    class Watch(Callback):
        def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
            optimizer = trainer.optimizers[0]
            assert optimizer.state_dict()["state"] == {}
            assert "initial_lr" not in optimizer.param_groups[0]
            assert "step" not in vars(optimizer)
            assert not pl_module.dropout.training
            assert float(pl_module.seen) == 0
            seen["draw"] = loading.generator.get_state().tolist()

        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            seen["steps"] = trainer.global_step

    before = loading.generator.get_state().tolist()
    watch, finder = Watch(), LearningRateFinder(num_training_steps=8, update_attr=False)
    logger = CSVLogger(tmp_path)
    trainer = quiet(callbacks=[finder, watch], logger=logger)
    trainer.fit(module, loading)
    assert seen == {"draw": before, "steps": 4}
    assert trainer.callbacks == [finder, watch]
    assert trainer.loggers == [logger]


def test_learning_rate_is_set_for_the_fit_that_goes_on() -> None:
    finder = LearningRateFinder(num_training_steps=30, early_stop_threshold=None)
    _, finish = trained(finder)
    assert finder.optimal_lr is not None
    suggestion = finder.optimal_lr.suggestion()
    assert finish.lrs == [suggestion] * 6
    assert suggestion != 0.1


def test_learning_rate_tuner_returns_results_and_sets_the_hyperparameter() -> None:
    module, trainer = Tunable(), quiet(max_epochs=9)
    found = Tuner(trainer).lr_find(
        module, min_lr=1e-4, num_training=20, early_stop_threshold=None
    )
    assert isinstance(found, _LRFinder)
    assert found.results["lr"][0] == 1e-4
    assert found.results["lr"][-1] == pytest.approx(1.0)
    assert module.hparams.lr == found.suggestion()
    assert trainer.callbacks == []
    assert trainer.state.status == "finished"
    assert trainer.global_step == 0
    trainer.fit(module)
    assert trainer.current_epoch == 9


def test_suggestion_is_the_steepest_point_and_skips_what_is_not_finite() -> None:
    found = _LRFinder("linear", 1, 6, 6)
    found.results = {
        "lr": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        "loss": [9.0, 9.0, float("nan"), 8.0, 2.0, 1.9],
    }
    assert found.suggestion(skip_begin=0, skip_end=0) == 4.0
    with pytest.warns(UserWarning, match="has 6 losses, too few"):
        assert found.suggestion(skip_begin=4, skip_end=1) is None


def test_plot_marks_the_suggestion(monkeypatch: pytest.MonkeyPatch) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    found = _LRFinder("exponential", 1, 4, 4)
    found.results = {"lr": [1.0, 2.0, 3.0, 4.0], "loss": [4.0, 3.9, 1.0, 0.9]}
    monkeypatch.setattr(found, "suggestion", lambda: setattr(found, "_optimal_idx", 2))
    figure = found.plot(suggest=True)
    (axes,) = figure.axes
    curve, mark = axes.lines
    assert curve.get_ydata().tolist() == [4.0, 3.9, 1.0, 0.9]
    assert (mark.get_xdata().tolist(), mark.get_ydata().tolist()) == ([3.0], [1.0])
    assert axes.get_xscale() == "log"


def test_batch_size_is_found_for_the_fit_that_goes_on() -> None:
    module = Tunable()
    module.capacity = 20
    finder = BatchSizeFinder()
    trainer = quiet(callbacks=[finder])
    trainer.fit(module)
    assert finder.optimal_batch_size == module.hparams.batch_size == 16
    assert module.sizes[-4:] == [16] * 4
    assert trainer.num_training_batches == 4


def test_resumed_fit_keeps_its_batch_size_whoever_asks_for_loaders_first(
    tmp_path: Path,
) -> None:
    class Counting(Tunable):
        def configure_optimizers(self) -> Any:
            self.expected = self.trainer.estimated_stepping_batches
            return super().configure_optimizers()

    first = quiet(callbacks=[BatchSizeFinder(max_val=16)])
    first.fit(Counting())
    first.save_checkpoint(tmp_path / "a.ckpt")
    module = Counting()
    trainer = quiet(callbacks=[BatchSizeFinder(max_val=16)], max_epochs=2)
    trainer.fit(module, ckpt_path=tmp_path / "a.ckpt")
    assert module.sizes == [16] * 4  # of the second epoch
    assert module.expected == trainer.global_step == 8


def test_batch_size_of_a_datamodule_is_set() -> None:
    class Data(LightningDataModule):
        def __init__(self) -> None:
            super().__init__()
            self.batch_size = 3

        def train_dataloader(self) -> Any:
            return loader(64, self.batch_size)

    class Limited(Small):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if len(batch) > 9:
                raise torch.OutOfMemoryError("no more")
            return super().training_step(batch, batch_idx)

    datamodule = Data()
    found = Tuner(quiet()).scale_batch_size(
        Limited(), datamodule=datamodule, mode="binsearch", margin=0.0
    )
    assert found == datamodule.batch_size == 9


def test_evaluation_goes_on_with_the_size_that_was_found() -> None:
    module = Tunable()
    module.capacity = 20
    trainer = quiet(callbacks=[BatchSizeFinder(steps_per_trial=1)])
    results = trainer.test(module, verbose=False)
    assert module.hparams.batch_size == 16
    assert module.sizes == [2, 4, 8, 16, 32, 16, 16, 16, 16]
    assert set(results[0]) == {"loss"}


def test_finder_can_run_at_other_epochs() -> None:
    class At(BatchSizeFinder):
        def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
            pass

        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == 1:
                self.scale_batch_size(trainer, pl_module)

    module, finish = Tunable(batch_size=16), Finish()
    module.capacity = 40
    trainer = quiet(callbacks=[At(init_val=32), finish], max_epochs=2)
    trainer.fit(module)
    assert finish.epochs == [0, 0, 0, 0, 1, 1]
    assert trainer.val_check_batch == 2
    assert trainer.global_step == 6


def test_other_errors_pass_and_everything_is_put_back() -> None:
    class Failing(Tunable):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            super().training_step(batch, batch_idx)
            raise RuntimeError("of the user")

    module, trainer = Failing(), quiet()
    with pytest.raises(RuntimeError, match="of the user"):
        Tuner(trainer).scale_batch_size(module)
    assert module.hparams.batch_size == 2
    assert float(module.seen) == 0
    assert trainer.callbacks == []


def test_not_one_sample_fits() -> None:
    module = Tunable()
    module.capacity = 0
    with pytest.raises(MisconfigurationException, match="every size down to 1"):
        Tuner(quiet()).scale_batch_size(module)
    assert module.hparams.batch_size == 2


def test_fast_dev_run_tunes_nothing() -> None:
    tuner = Tuner(quiet(fast_dev_run=True))
    with pytest.warns(UserWarning, match="runs no batch size finder"):
        assert tuner.scale_batch_size(Tunable()) is None
    with pytest.warns(UserWarning, match="runs no learning rate finder"):
        assert tuner.lr_find(Tunable()) is None


def test_what_cannot_be_tuned_is_refused() -> None:
    tuner = Tuner(quiet())
    with pytest.raises(
        MisconfigurationException, match=r"loaders passed to `trainer\.fit"
    ):
        tuner.scale_batch_size(Tunable(), loader())
    with pytest.raises(MisconfigurationException, match="Did you mean 'batch_size'"):
        tuner.scale_batch_size(Tunable(), batch_arg_name="batchsize")
    with pytest.raises(MisconfigurationException, match="'lr' or 'learning_rate'"):
        tuner.lr_find(Small(), loader())
    with pytest.raises(MisconfigurationException, match="only method="):
        tuner.lr_find(Tunable(), method="test")
    with pytest.raises(MisconfigurationException, match="pass `train_dataloaders`"):
        tuner.lr_find(Tunable(), dataloaders=loader())
    with pytest.raises(MisconfigurationException, match="pass `dataloaders`"):
        tuner.scale_batch_size(Tunable(), loader(), method="test")
    with pytest.raises(ValueError, match="method='train'"):
        tuner.scale_batch_size(Tunable(), method="train")


def test_finders_refuse_other_arguments() -> None:
    with pytest.raises(ValueError, match="'linear', 'exponential'"):
        LearningRateFinder(mode="log")
    with pytest.raises(ValueError, match="'power', 'binsearch'"):
        BatchSizeFinder(mode="double")
    with pytest.raises(ValueError, match="margin=1"):
        BatchSizeFinder(margin=1.0)


@pytest.mark.parametrize("kind", [LearningRateFinder, BatchSizeFinder])
def test_tuner_refuses_a_trainer_that_tunes(kind: Any) -> None:
    tuner = Tuner(quiet(callbacks=[kind()]))
    call = tuner.lr_find if kind is LearningRateFinder else tuner.scale_batch_size
    with pytest.raises(ValueError, match=f"has a `{kind.__name__}` callback"):
        call(Tunable())


def test_several_optimizers_have_no_one_rate() -> None:
    class Two(Tunable):
        def configure_optimizers(self) -> Any:
            return {
                "a": torch.optim.SGD([self.layer.weight], lr=0.1),
                "b": torch.optim.SGD([self.layer.bias], lr=0.1),
            }

    with pytest.raises(MisconfigurationException, match="returned 2"):
        Tuner(quiet()).lr_find(Two())
