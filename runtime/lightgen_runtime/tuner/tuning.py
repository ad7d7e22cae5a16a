"""Tuning as a call of its own, before a run; the callbacks do it as part of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightgen_runtime.callbacks.batch_size_finder import BatchSizeFinder
from lightgen_runtime.callbacks.callback import Callback
from lightgen_runtime.callbacks.lr_finder import LearningRateFinder
from lightgen_runtime.trainer.launched import is_launched
from lightgen_runtime.utilities.exceptions import MisconfigurationException

if TYPE_CHECKING:
    from lightgen_runtime.callbacks.lr_finder import _LRFinder
    from lightgen_runtime.core.datamodule import LightningDataModule
    from lightgen_runtime.core.module import LightningModule
    from lightgen_runtime.trainer.trainer import Trainer

METHODS = ("fit", "validate", "test", "predict")


class Tuner:
    """Tunes a module with the settings of a trainer.

    Example:
        >>> from lightgen_runtime import Trainer
        >>> tuner = Tuner(Trainer(max_epochs=3))
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def scale_batch_size(
        self,
        model: LightningModule,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        dataloaders: Any = None,
        datamodule: LightningDataModule | None = None,
        method: str = "fit",
        mode: str = "power",
        steps_per_trial: int = 3,
        init_val: int = 2,
        max_trials: int = 25,
        batch_arg_name: str = "batch_size",
        margin: float = 0.05,
        max_val: int = 8192,
    ) -> int | None:
        """Find the largest batch size that memory takes, and set it.

        Args:
            model: What to tune.
            train_dataloaders: A datamodule may stand here, as in `trainer.fit`.
            val_dataloaders: As in `trainer.fit`.
            dataloaders: As in the other methods.
            datamodule: Makes the loaders, if the module does not.
            method: "fit", "validate", "test" or "predict": what is to fit into memory.
            mode: As for `BatchSizeFinder`, like all that follow.
            steps_per_trial: Steps to try each size with.
            init_val: Size to start with.
            max_trials: How many sizes to try.
            batch_arg_name: Where the size is kept.
            margin: Share by which "binsearch" reduces the size in the end.
            max_val: Largest size to try.

        Returns:
            The size; None with `fast_dev_run`.

        Raises:
            MisconfigurationException: Loaders are given where none belong, or cannot be
                made with another size.
            ValueError: `method` is none of these, or the trainer has a
                `BatchSizeFinder`.
        """
        finder = BatchSizeFinder(
            mode,
            steps_per_trial,
            init_val,
            max_trials,
            batch_arg_name,
            margin,
            max_val,
        )
        given = (train_dataloaders, val_dataloaders, dataloaders)
        self._run(finder, method, model, given, datamodule)
        return finder.optimal_batch_size

    def lr_find(
        self,
        model: LightningModule,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        dataloaders: Any = None,
        datamodule: LightningDataModule | None = None,
        method: str = "fit",
        min_lr: float = 1e-8,
        max_lr: float = 1,
        num_training: int = 100,
        mode: str = "exponential",
        early_stop_threshold: float | None = 4.0,
        update_attr: bool = True,
        attr_name: str = "",
    ) -> _LRFinder | None:
        """Train a little with each of many learning rates, and set a good one.

        Args:
            model: What to tune.
            train_dataloaders: As in `trainer.fit`.
            val_dataloaders: As in `trainer.fit`.
            dataloaders: Accepted for symmetry; nothing belongs here.
            datamodule: As in `trainer.fit`.
            method: "fit".
            min_lr: As for `LearningRateFinder`, like all that follow.
            max_lr: Where to end.
            num_training: How many learning rates to try.
            mode: "exponential" or "linear".
            early_stop_threshold: Stop when the loss exceeds the best by this factor.
            update_attr: Set the module's attribute to the suggestion.
            attr_name: The attribute; by default `lr` or `learning_rate`.

        Returns:
            What was found; None with `fast_dev_run`.

        Raises:
            MisconfigurationException: `method` is not "fit", there are several
                optimizers, or there is no attribute to set.
            ValueError: The trainer has a `LearningRateFinder`.
        """
        if method != "fit":
            raise MisconfigurationException(
                f"`Tuner.lr_find(method={method!r})`: a learning rate is for training, so "
                'only method="fit" is accepted'
            )
        finder = LearningRateFinder(
            min_lr,
            max_lr,
            num_training,
            mode,
            early_stop_threshold,
            update_attr,
            attr_name,
        )
        given = (train_dataloaders, val_dataloaders, dataloaders)
        self._run(finder, method, model, given, datamodule)
        return finder.optimal_lr

    def _run(
        self,
        finder: BatchSizeFinder | LearningRateFinder,
        method: str,
        model: LightningModule,
        given: tuple[Any, Any, Any],
        datamodule: LightningDataModule | None,
    ) -> None:
        """Run `method` up to where the finder has found what it looks for."""
        _check_loaders(method, *given)
        trainer, kind = self._trainer, type(finder)
        if is_launched(trainer):
            raise MisconfigurationException(
                "the tuner with a strategy that starts processes for each run: what it "
                "finds would stay there. Find it with devices=1, or use the callback "
                f"`{kind.__name__}`."
            )
        if any(isinstance(callback, kind) for callback in trainer.callbacks):
            raise ValueError(
                f"the trainer has a `{kind.__name__}` callback, which tunes by itself. "
                "Remove it to use the `Tuner`."
            )
        finder._early_exit = True
        train, validate, other = given
        callbacks: list[Callback] = trainer.callbacks
        callbacks.insert(0, finder)
        try:
            if method == "fit":
                trainer.fit(model, train, validate, datamodule)
            elif method == "predict":
                trainer.predict(model, other, datamodule)
            else:
                run = getattr(trainer, method)
                run(model, other, verbose=False, datamodule=datamodule)
        finally:
            callbacks.remove(finder)


def _check_loaders(method: str, train: Any, validate: Any, other: Any) -> None:
    if method not in METHODS:
        raise ValueError(
            f"the tuner got method={method!r}; accepted are "
            f"{', '.join(map(repr, METHODS))}"
        )
    if method == "fit" and other is not None:
        raise MisconfigurationException(
            'the tuner got `dataloaders` with method="fit"; pass `train_dataloaders` and '
            "`val_dataloaders`"
        )
    if method != "fit" and (train is not None or validate is not None):
        raise MisconfigurationException(
            f"the tuner got `train_dataloaders` or `val_dataloaders` with method="
            f"{method!r}; pass `dataloaders`"
        )
