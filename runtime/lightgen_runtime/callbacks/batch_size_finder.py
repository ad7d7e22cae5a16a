"""Find the largest batch size that memory takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lightgen_runtime.callbacks.callback import Callback
from lightgen_runtime.core.tunable import find_tunable, get_tunable, set_tunable
from lightgen_runtime.utilities.exceptions import MisconfigurationException, TunerExit
from lightgen_runtime.utilities.memory import garbage_collection_cuda, is_oom_error
from lightgen_runtime.utilities.rank_zero import rank_zero_info, rank_zero_warn

if TYPE_CHECKING:
    from lightgen_runtime.core.module import LightningModule
    from lightgen_runtime.trainer.trainer import Trainer

MODES = ("power", "binsearch")


class BatchSizeFinder(Callback):
    """Before a run, try growing batch sizes until memory is full.

    The trials leave no trace in weights, optimizer, counters and random numbers. The
    loaders must come from the module or datamodule, which read the size from an attribute.

    Compat: every size is tried before it is returned, none beyond `max_val`; Lightning
    returns some untried. A fit that is resumed keeps the size that was found.

    Args:
        mode: "power" doubles; "binsearch" then halves the distance between the largest
            size that fits and the smallest that does not.
        steps_per_trial: Steps to try each size with.
        init_val: Size to start with.
        max_trials: How many sizes to try; with "binsearch", how many that fit.
        batch_arg_name: The attribute or hyperparameter of module or datamodule.
        margin: Share by which "binsearch" reduces the size in the end.
        max_val: Largest size to try.

    Raises:
        ValueError: `mode` is neither, or `margin` is not from 0 to below 1.
    """

    SUPPORTED_MODES = MODES

    def __init__(
        self,
        mode: str = "power",
        steps_per_trial: int = 3,
        init_val: int = 2,
        max_trials: int = 25,
        batch_arg_name: str = "batch_size",
        margin: float = 0.05,
        max_val: int = 8192,
    ) -> None:
        if mode.lower() not in MODES:
            raise ValueError(
                f"`BatchSizeFinder(mode={mode!r})`: accepted are "
                f"{', '.join(map(repr, MODES))}"
            )
        if not 0.0 <= margin < 1.0:
            raise ValueError(
                f"`BatchSizeFinder(margin={margin!r})`: a share from 0 to below 1 is "
                "accepted"
            )
        self.optimal_batch_size: int | None = init_val
        self._mode = mode.lower()
        self._steps_per_trial = steps_per_trial
        self._init_val = init_val
        self._max_trials = max_trials
        self._batch_arg_name = batch_arg_name
        self._margin = margin
        self._max_val = max_val
        self._early_exit = False
        self._kept: int | None = None  # of the fit that is resumed

    def state_dict(self) -> dict[str, Any]:
        """Return the size that was found."""
        return {"batch_size": self.optimal_batch_size}

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Set the size that was found before, in time for loaders that optimizers ask for."""
        found = checkpoint.get("callbacks", {}).get(self.state_key, {})
        self._kept = found.get("batch_size")
        if self._kept is not None:
            name = self._batch_arg_name
            set_tunable(pl_module, trainer.datamodule, name, self._kept)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what cannot be tuned before anything runs."""
        if trainer.world_size > 1:
            raise MisconfigurationException(
                f"the batch size finder runs in one process, and there are "
                f"{trainer.world_size}; find the size first, with devices=1"
            )
        name, data = self._batch_arg_name, trainer.datamodule
        find_tunable(pl_module, data, [name])
        if name in vars(pl_module) and name in pl_module.hparams:
            rank_zero_warn(
                f"{type(pl_module).__name__} has `{name}` and `hparams.{name}`; the batch "
                "size finder sets both. Keep one of them."
            )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the size for fitting; override to do so at other moments."""
        if trainer.ckpt_path is None or self._kept is None:
            self.scale_batch_size(trainer, pl_module)
            return
        self.optimal_batch_size = self._kept
        rank_zero_info(
            f"The batch size finder does not run: a resumed fit keeps its {self._kept}."
        )

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the size for `trainer.validate`."""
        if trainer.state.fn == "validate":
            self.scale_batch_size(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the size for testing."""
        self.scale_batch_size(trainer, pl_module)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the size for predicting."""
        self.scale_batch_size(trainer, pl_module)

    def scale_batch_size(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the size now, set it, and keep it in `optimal_batch_size`.

        Raises:
            MisconfigurationException: Not even one sample fits.
        """
        if trainer.fast_dev_run:
            rank_zero_warn("`fast_dev_run` runs no batch size finder")
            self.optimal_batch_size = None
        else:
            self.optimal_batch_size = self._find(trainer, pl_module)
        if self._early_exit:
            raise TunerExit

    def _find(self, trainer: Trainer, pl_module: LightningModule) -> int:
        name, data = self._batch_arg_name, trainer.datamodule
        before = get_tunable(pl_module, data, name)
        size = before
        with trainer.trial() as trial:
            if trial.loaders_given:
                raise MisconfigurationException(
                    "the batch size finder got loaders passed to "
                    f"`trainer.{trainer.state.fn}()`, whose batch size is fixed. Make them "
                    "in the module or a datamodule."
                )

            def samples_if_fits(size: int) -> int | float | None:
                set_tunable(pl_module, data, name, size)
                steps = self._steps_per_trial
                try:
                    return trial.attempt(
                        [],
                        max_steps=steps,
                        limit_batches=steps,
                        limit_val_batches=steps,
                    )
                except (RuntimeError, MemoryError) as error:
                    if not is_oom_error(error):
                        raise
                    return None
                finally:
                    garbage_collection_cuda()

            try:
                size = self._search(samples_if_fits)
            finally:
                set_tunable(pl_module, data, name, size)
        rank_zero_info(f"Batch size set to {size}")
        return size

    def _search(self, samples_if_fits: Callable[[int], int | float | None]) -> int:
        """Return the largest size that fits, as far as the trials tell.

        Args:
            samples_if_fits: Tries a size; returns the number of samples there are, or
                None if memory does not suffice.
        """
        size, fitting, failing = min(self._init_val, self._max_val), 0, None
        trials = 0
        while trials < self._max_trials:
            samples = samples_if_fits(size)
            rank_zero_info(
                f"Batch size {size} {'does not fit' if samples is None else 'fits'}"
            )
            trials += samples is not None or self._mode == "power"
            if samples is None:
                failing = size
            else:
                fitting = size
                if size >= min(samples, self._max_val):
                    break
            if failing is None:
                size = min(2 * size, self._max_val)
            elif (self._mode == "power" and fitting) or failing - fitting <= 1:
                break
            else:
                size = (failing + fitting) // 2
        if not fitting:
            raise MisconfigurationException(
                f"the batch size finder ran out of memory with every size down to "
                f"{failing}: use a smaller model or smaller samples"
            )
        if self._mode == "binsearch":
            return max(1, int(fitting * (1 - self._margin)))
        return fitting
