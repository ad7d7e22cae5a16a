"""What goes into a checkpoint, and how a run is put back to where one was written.

When to write one is a callback's decision; how bytes reach the disk is `io`'s business.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightgen_runtime.callbacks.weight_averaging import WeightAveraging
from lightgen_runtime.core.loading import load_weights
from lightgen_runtime.core.optim_resume import WEIGHTS_ALONE, restore_optimizers
from lightgen_runtime.io.content_check import reading
from lightgen_runtime.io.schema import (
    LIGHTNING_VERSION,
    OWN_FORMAT,
    OWN_KEY,
    VERSION_KEY,
    loops_from_progress,
    plain,
    progress_from_loops,
    record_in,
    written_out,
)
from lightgen_runtime.loops import own_generators
from lightgen_runtime.loops.elastic import mismatch, share_of
from lightgen_runtime.loops.metric_objects import restore_objects, states_of_objects
from lightgen_runtime.loops.position import random_states
from lightgen_runtime.loops.progress import ValidationPosition
from lightgen_runtime.trainer.merged_states import state_for
from lightgen_runtime.utilities.exceptions import (
    CheckpointFormatError,
    CheckpointMismatchError,
    MisconfigurationException,
)
from lightgen_runtime.utilities.move_data import move_data_to_device
from lightgen_runtime.utilities.rank_zero import rank_zero_warn
from lightgen_runtime.utilities.seed import collect_rng_states

if TYPE_CHECKING:
    from lightgen_runtime.callbacks.callback import Callback
    from lightgen_runtime.loops.run import Run


def dump_checkpoint(run: Run, weights_only: bool) -> dict[str, Any]:
    """Gather the state of a run.

    Args:
        run: The run.
        weights_only: Leave out what only a resumed fit needs.
    """
    module, datamodule = run.module, run.datamodule
    strategy = run.parts.strategy
    counters = run.progress.state_dict()
    checkpoint = model_content(run)
    if weights_only:
        for callback in run.callbacks:
            if isinstance(callback, WeightAveraging):
                checkpoint["state_dict"] = callback.weights_to_save(
                    run.trainer, checkpoint["state_dict"]
                )
    else:
        checkpoint.update(training_content(run))
        local = _state_of_this_process(run)
        checkpoint[OWN_KEY] = {
            "format": OWN_FORMAT,
            "progress": counters,
            "callback_metrics": run.report.state_dict(),
            "loggers": run.report.states_of_loggers(),
            "share": share_of(run),
            **local,
            **run.plan.record.state_dict(
                run.plan.optimizers, [c.scheduler for c in run.plan.schedulers]
            ),
        }
        others = strategy.gather_objects(local)[1:]
        if others:
            checkpoint[OWN_KEY]["other_processes"] = others
        if run.scaling is not None:
            run.scaling.update()  # due already, if a hook stepped by hand
            checkpoint[OWN_KEY]["scaling"] = run.scaling.state_dict()
        precision = run.parts.precision
        if state := precision.state_dict():
            checkpoint[type(precision).__qualname__] = state
    if datamodule is not None and (state := datamodule.state_dict()):
        checkpoint[type(datamodule).__qualname__] = state
    if not weights_only:
        for callback in run.callbacks:
            callback.on_save_checkpoint(run.trainer, module, checkpoint)
    module.on_save_checkpoint(checkpoint)
    return plain_content(checkpoint)


def model_content(run: Run) -> dict[str, Any]:
    """Return what every checkpoint holds: weights, hyperparameters, counters."""
    progress = run.progress
    checkpoint: dict[str, Any] = {
        "epoch": progress.current_epoch,
        "global_step": progress.global_step,
        VERSION_KEY: LIGHTNING_VERSION,
        "state_dict": run.parts.strategy.gathered(run.module.state_dict()),
        "loops": loops_from_progress(progress.state_dict()),
    }
    _add_hyperparameters(checkpoint, run.module)
    if run.datamodule is not None:
        _add_hyperparameters(checkpoint, run.datamodule)
    return checkpoint


def training_content(run: Run) -> dict[str, Any]:
    """Return the states of callbacks, optimizers and schedulers."""
    return {
        "callbacks": {
            callback.state_key: state
            for callback in run.callbacks
            if (state := callback.state_dict())
        },
        "optimizer_states": [
            run.parts.strategy.gathered(optimizer.state_dict())
            for optimizer in run.plan.optimizers
        ],
        "lr_schedulers": [s.scheduler.state_dict() for s in run.plan.schedulers],
    }


def plain_content(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return a checkpoint as data that any safe loader reads.

    Raises:
        MisconfigurationException: Something in it is no data.
    """
    return {
        key: _plain_state_dict(value) if key == "state_dict" else plain(value, key)
        for key, value in checkpoint.items()
    }


def _state_of_this_process(run: Run) -> dict[str, Any]:
    """Return what no process has like another, on the host, where all is gathered."""
    state: dict[str, Any] = {
        "train_metrics": run.stores["train"].state_dict(),
        "loader": run.states_of_loaders(),
    }
    stages = {stage: run.stores[stage] for stage in ("train", "validate")}
    objects = states_of_objects(run.module, stages)
    if objects["gathered"]:
        state["metric_objects"] = objects
    if run.resumed is not None:  # nothing has been trained since
        state.update(run.resumed)
    else:
        state["rng"] = _random_states(run)
        state["gradients"] = _partial_gradients(run)
        state["epoch_rng"] = run.epoch_rng
    if run.validation is not None:
        metrics = run.stores["validate"].state_dict()
        state["validation"] = {**run.validation.state_dict(), "metrics": metrics}
    on_host: dict[str, Any] = move_data_to_device(state, torch.device("cpu"))
    return on_host


def _plain_state_dict(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Keep tensors as they are; only a module's extra state can be anything else."""
    return {
        key: (
            written_out(value)
            if isinstance(value, Tensor)
            else plain(value, f"state_dict.{key}")
        )
        for key, value in state_dict.items()
    }


def _random_states(run: Run) -> dict[str, Any]:
    opened = run.source.opened("train")
    states = (
        random_states(run.source.train().loader) if opened else collect_rng_states()
    )
    own = own_generators.generators_of_module(run.module)
    return {**states, "module": own_generators.states_of(own)}


def _partial_gradients(run: Run) -> list[Tensor | None]:
    """Return the gradients of an accumulation window that is still open, else nothing."""
    progress, window = run.progress, run.trainer.accumulate_grad_batches
    if progress.is_last_batch or progress.batch_idx % window == 0:
        return []
    return run.parts.strategy.open_gradients(run.optimized_parameters())


def restore_model(run: Run, checkpoint: dict[str, Any], source: str) -> None:
    """Load weights, datamodule and callbacks, before the model is placed.

    Args:
        run: The run.
        checkpoint: What was read.
        source: Its path, for messages.
    """
    module, datamodule, trainer = run.module, run.datamodule, run.trainer
    if "state_dict" not in checkpoint:
        raise CheckpointFormatError(
            f"what was loaded from `{source}` has no `state_dict`, only "
            f"{sorted(map(str, checkpoint))[:8]}: it is not a checkpoint of a run"
        )
    module.on_load_checkpoint(checkpoint)
    weights = run.parts.strategy.spread_weights(module, checkpoint["state_dict"])
    load_weights(module, weights, module.strict_loading, source)
    if datamodule is not None:
        state = checkpoint.get(type(datamodule).__qualname__)
        if state is not None:
            datamodule.load_state_dict(state)
    if trainer.state.fn != "fit":
        return
    states: Mapping[str, Any] = checkpoint.get("callbacks") or {}
    for callback in run.callbacks:
        callback.on_load_checkpoint(trainer, module, checkpoint)
    for callback in run.callbacks:
        state = states.get(callback.state_key)
        if state is not None:
            _restore_callback(callback, state, source)
    known = {callback.state_key for callback in run.callbacks}
    unknown = [key for key in states if key not in known]
    if unknown:
        rank_zero_warn(
            f"`{source}` holds the state of callbacks that this trainer does not have: "
            f"{unknown}. Add them with the same arguments to go on exactly."
        )


def _restore_callback(callback: Callback, state: Any, source: str) -> None:
    if not is_ours(callback):
        callback.load_state_dict(dict(state))
        return
    with reading(f"callbacks.{callback.state_key}", source):
        callback.load_state_dict(dict(state))


def is_ours(part: object) -> bool:
    """Tell whether the class of `part` is one of this package."""
    return type(part).__module__.partition(".")[0] == __name__.partition(".")[0]


def restore_training(run: Run, checkpoint: dict[str, Any], source: str) -> None:
    """Put counters, optimizers, schedulers, metrics and random numbers back.

    Raises:
        CheckpointMismatchError: The checkpoint holds weights only, or its optimizers or
            schedulers are not the run's.
    """
    if "optimizer_states" not in checkpoint:
        raise CheckpointMismatchError(
            f"`{source}` holds weights only, so a fit cannot go on from it. Resume from a "
            "checkpoint that was saved without save_weights_only, or "
            f"{WEIGHTS_ALONE}."
        )
    own = checkpoint.get(OWN_KEY, {})
    if own.get("format", OWN_FORMAT) > OWN_FORMAT:
        raise CheckpointFormatError(
            f"`{source}` was written by a newer version (format {own['format']}, this one "
            f"reads up to {OWN_FORMAT}). Update lightgen to go on from it."
        )
    with reading(OWN_KEY, source):
        own = _own_of_this_process(run, own, source)
    with reading(f"{OWN_KEY}.progress" if own else "loops", source):
        counters = own.get("progress") or progress_from_loops(checkpoint)
        run.progress.load_state_dict(counters)
        run.progress.reopen_epoch()
    with reading(OWN_KEY, source):
        restore_optimizers(
            run.plan,
            checkpoint["optimizer_states"],
            checkpoint.get("lr_schedulers", []),
            own if "optimizers" in own else None,
            {"step": run.progress.global_step, "epoch": run.progress.epochs_done},
            source,
            run.parts.strategy.spread_optimizer_state,
        )
    precision = run.parts.precision
    if state := checkpoint.get(type(precision).__qualname__):
        with reading(type(precision).__qualname__, source):
            precision.load_state_dict(state)
    with reading(OWN_KEY, source):
        _restore_own(run, own)


def _restore_own(run: Run, own: dict[str, Any]) -> None:
    if run.scaling is not None and "scaling" in own:
        run.scaling.load_state_dict(own["scaling"])
    if own:
        device = run.parts.strategy.root_device
        run.stores["train"].load_state_dict(own["train_metrics"], device)
        run.report.load_state_dict(own["callback_metrics"])
        run.report.hold_states_of_loggers(own.get("loggers", []))
        run.resumed = {name: own[name] for name in ("rng", "epoch_rng", "gradients")}
        run.loader_states = own.get("loader", {})
        run.share = own.get("share")
        if (validation := own.get("validation")) is not None:
            metrics = validation.pop("metrics")
            run.stores["validate"].load_state_dict(metrics, device)
            run.validation = ValidationPosition(**validation)
        if "metric_objects" in own:
            objects = own["metric_objects"]
            objects = objects if isinstance(objects, list) else [objects]
            restore_objects(run.module, run.stores, objects)


def _own_of_this_process(run: Run, own: dict[str, Any], source: str) -> dict[str, Any]:
    """Return what this process, of several, saved of its own.

    Raises:
        CheckpointMismatchError: The file is from inside an epoch, by another number of
            processes, and what is left of the epoch is not known.
    """
    if record_in({OWN_KEY: own})["role"] == "partial":
        raise CheckpointMismatchError(
            f"`{source}` was written inside an epoch by one of several processes, because "
            "an exception ended their fit: where the others stood is not known. Go on from "
            "another checkpoint; `load_from_checkpoint` takes the weights of this one."
        )
    if not own:
        return own
    saved, strategy = [own, *own.get("other_processes", [])], run.parts.strategy
    if (share := own.get("share")) is not None and share["why"] is None:
        own["share"] = {"begun": _begun(own), **share}
    if strategy.world_size == len(saved):
        rank = strategy.global_rank
        return {**own, **saved[rank]} if rank else own
    position = own["progress"]
    inside = position["batch_idx"] > 0 and not position["is_last_batch"]
    if inside and (share is None or share["why"] is not None):
        why = "the checkpoint does not say how" if share is None else share["why"]
        raise mismatch(source, share, strategy.world_size, why)
    if share is not None and share["processes"] != len(saved):
        saved = saved[:1]  # others have read the same
    return {**own, **state_for(saved, strategy.world_size, strategy.global_rank)}


def _begun(own: dict[str, Any]) -> dict[str, Any]:
    """Return what the running epoch's order was drawn from, by the first process."""
    feeds = own.get("loader", {}).get("train") or [{"readers": [{}], "read": []}]
    reader, last = feeds[0]["readers"][0], None
    if reader.get("last_indices") is not None:
        batches = own["progress"]["batch_idx"] + len(feeds[0]["read"])
        last = [batches * own["share"]["per_batch"], reader["last_indices"]]
    return {
        "rng": own["epoch_rng"],
        "again": reader.get("again", False),
        "samplers": reader.get("samplers_at_start", []),
        "last": last,
    }


def _add_hyperparameters(checkpoint: dict[str, Any], owner: Any) -> None:
    if not owner.hparams:
        return
    kept = {}
    for name, value in owner.hparams.items():
        try:
            kept[name] = plain(value, name)
        except MisconfigurationException:
            rank_zero_warn(
                f"the hyperparameter `{name}` ({type(value).__name__}) of "
                f"{type(owner).__name__} is not stored in checkpoints, which hold data "
                f"only; leave it out with `self.save_hyperparameters(ignore=[{name!r}])`"
            )
    checkpoint[owner.CHECKPOINT_HYPER_PARAMS_KEY] = kept
    name = owner.__dict__.get("_hparams_name", "kwargs")
    checkpoint[owner.CHECKPOINT_HYPER_PARAMS_NAME] = name
