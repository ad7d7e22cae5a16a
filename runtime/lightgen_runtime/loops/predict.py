"""The story of a prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from lightgen_runtime.callbacks.prediction_writer import BasePredictionWriter
from lightgen_runtime.loops.company import in_company
from lightgen_runtime.loops.evaluate import StageHooks, bound_step
from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.move_data import move_data_to_device
from lightgen_runtime.utilities.nearest import did_you_mean

if TYPE_CHECKING:
    from lightgen_runtime.loops.run import Run


_ALL = "all"


def which_predictions(value: bool | str | None) -> bool | str:
    """Return what `return_predictions` asks for: True where it is not given.

    Raises:
        MisconfigurationException: It is another word than "all".
    """
    if value is not None and not isinstance(value, bool) and value != _ALL:
        raise MisconfigurationException(
            f"`predict(return_predictions={value!r})`: accepted are True (of this "
            f"process), {_ALL!r} (of all processes, in the data's order), False and None "
            f"(True).{did_you_mean(value, [_ALL])}"
        )
    return True if value is None else value


def run_predict(run: Run, return_predictions: bool | str) -> list[Any] | None:
    """Predict every batch of every loader.

    Args:
        run: The run.
        return_predictions: Whether to keep what `predict_step` returns; "all" also gets
            that of the other processes, which say the same.

    Returns:
        Predictions by batch; with several loaders, a list of such lists.
    """
    hooks, context = StageHooks(run, "predict"), run.context
    feeds, predicted = run.source.feeds("predict"), run.predicted
    if not any(feed.takes_part for feed in feeds):  # switched off by a limit of 0
        return None
    writers = [c for c in run.callbacks if isinstance(c, BasePredictionWriter)]
    keep = bool(return_predictions) or any(
        writer.interval.on_epoch for writer in writers
    )
    run.trainer.enter_stage("predict")
    run.report.enter(None)
    no_gradients = torch.inference_mode if run.parts.inference_mode else torch.no_grad
    with no_gradients(), hooks.eval_mode():
        hooks.fire("start")
        hooks.fire("epoch_start")
        for feed in feeds:
            number = (feed.dataloader_idx,) if len(feeds) > 1 else ()
            step = bound_step(run, "predict_step", 2 + len(number))
            iterator = predicted.open(feed, record=bool(writers))
            iterator = run.measured_items("[_PredictionLoop].predict_next", iterator)
            scope = run.scopes["predict_step"]
            batches = in_company(run, feed, iterator, 0, step, scope, number)
            for batch_idx, batch, _ in batches:
                if writers:
                    predicted.note_indices()
                hooks.fire("batch_start", batch, batch_idx, *number)
                context.scope = scope
                output = step(batch, batch_idx, *number)
                hooks.fire("batch_end", output, batch, batch_idx, *number)
                if keep:
                    # On the host: all of them together could fill a device.
                    kept = move_data_to_device(output, torch.device("cpu"))
                    predicted.results[-1].append(kept)
        hooks.fire("epoch_end")
        hooks.fire("end")
    if not return_predictions:
        return None
    if return_predictions == _ALL:
        return predicted.of_all_processes(run.parts.strategy)
    return predicted.predictions
