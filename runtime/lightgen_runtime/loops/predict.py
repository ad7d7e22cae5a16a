"""The story of a prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from lightgen_runtime.loops.evaluate import StageHooks, bound_step

if TYPE_CHECKING:
    from lightgen_runtime.loops.run import Run


def run_predict(run: Run, return_predictions: bool) -> list[Any] | None:
    """Predict every batch of every loader.

    Args:
        run: The run.
        return_predictions: Whether to keep what `predict_step` returns.

    Returns:
        Predictions by batch; with several loaders, a list of such lists.
    """
    hooks, context = StageHooks(run, "predict"), run.context
    feeds = run.source.feeds("predict")
    collected: list[list[Any]] = []
    run.trainer.enter_stage("predict")
    run.report.enter(None)
    no_gradients = torch.inference_mode if run.parts.inference_mode else torch.no_grad
    with no_gradients(), hooks.eval_mode():
        hooks.fire("start")
        hooks.fire("epoch_start")
        for feed in feeds:
            number = (feed.dataloader_idx,) if len(feeds) > 1 else ()
            step = bound_step(run, "predict_step", 2 + len(number))
            predictions: list[Any] = []
            for batch_idx, batch, _ in feed.batches(feed.open()):
                hooks.fire("batch_start", batch, batch_idx, *number)
                context.scope = run.scopes["predict_step"]
                output = step(batch, batch_idx, *number)
                hooks.fire("batch_end", output, batch, batch_idx, *number)
                if return_predictions:
                    predictions.append(output)
            collected.append(predictions)
        hooks.fire("epoch_end")
        hooks.fire("end")
    if not return_predictions:
        return None
    return collected[0] if len(collected) == 1 else collected
