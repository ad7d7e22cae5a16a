"""What surrounds every stage: making a run ready, ending it, and ending it badly."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from lightgen_runtime.callbacks.callback import Callback
from lightgen_runtime.core.data_hooks import DataHooks
from lightgen_runtime.core.datamodule import LightningDataModule
from lightgen_runtime.core.hook_names import REFUSED, check_hook_names, hint_of_nearest
from lightgen_runtime.core.hook_signatures import check_hook_signatures, hooks_of
from lightgen_runtime.core.hparams import CLASS_PATH_KEY
from lightgen_runtime.core.module import LightningModule, attach
from lightgen_runtime.core.optim import OptimPlan
from lightgen_runtime.io.async_checkpoint_io import AsyncCheckpointIO
from lightgen_runtime.io.migrations import migrated
from lightgen_runtime.io.schema import record_in
from lightgen_runtime.loops.compiling import begin_compiling
from lightgen_runtime.precision.matmul import hint_at_tf32
from lightgen_runtime.profilers.base import PassThroughProfiler
from lightgen_runtime.trainer.build import as_callbacks, ordered
from lightgen_runtime.trainer.checkpoint import restore_model, restore_training
from lightgen_runtime.trainer.ckpt_path import Choice, load_chosen
from lightgen_runtime.trainer.error_notes import note_on
from lightgen_runtime.trainer.states import TrainerFn
from lightgen_runtime.trainer.storable import check_storable
from lightgen_runtime.utilities.exceptions import MisconfigurationException, add_note
from lightgen_runtime.utilities.nearest import nearest
from lightgen_runtime.utilities.rank_zero import rank_zero_warn

if TYPE_CHECKING:
    from lightgen_runtime.loops.run import Run

_STEPS = {
    "fit": ("training_step", "configure_optimizers"),
    "validate": ("validation_step",),
    "test": ("test_step",),
    "predict": (),
}
_STAGE_OF = {"fit": "train"}


def prepare(run: Run, fn: str, choose: Callable[[], Choice]) -> None:
    """Bring module, data, callbacks and saved state into place.

    Args:
        run: The run.
        fn: "fit", "validate", "test" or "predict".
        choose: Returns the checkpoint to go on from or to evaluate, once all processes
            can talk.
    """
    module, trainer, strategy = run.module, run.trainer, run.parts.strategy
    _check_module(run, fn)
    attach_callbacks(run, module.configure_callbacks())
    _lend_log(run)
    _check_hooks(run, fn)
    strategy.setup_environment()
    # Not earlier: processes that are forked must find no device in use.
    hint_at_tf32(strategy.root_device, run.parts.precision.precision)
    run.parts.accelerator.setup_device(strategy.root_device)
    run.parts.accelerator.setup(trainer)
    if isinstance(strategy.checkpoint_io, AsyncCheckpointIO):
        strategy.checkpoint_io.on_failure = run.note_failed_write
    choice = choose()  # which may have a logger go on in a former folder
    _share_folders(run)
    trainer.note_ckpt_path(choice.path)
    _begin_profile(run, fn)
    _set_up(run, fn)
    # What `setup` and `configure_model` have just made takes part too.
    attach(module, run.context, run)
    begin_compiling(run, trainer.compile_options)
    if strategy.spreads_model:
        strategy.place(module)  # so that no process holds the loaded weights whole
    checkpoint, source = None, ""
    if choice.path is not None:
        checkpoint, source = load_chosen(trainer, choice, fn)
        checkpoint = migrated(checkpoint)
        trainer.note_ckpt_path(source)
        if fn == "fit":
            trainer.fit_id = record_in(checkpoint)["run"] or trainer.fit_id
        restore_model(run, checkpoint, source)
    if not strategy.spreads_model:
        strategy.place(module)
    run.resolve_hooks()
    run.progress.evaluated.clear()
    if fn != "fit":
        _log_hyperparameters(run)
        return
    run.validates = _validates(run)
    run.plan = OptimPlan.from_module(module)
    strategy.check_optimizers(run.plan.optimizers)
    run.wrap_optimizers()
    _check_manual(run)
    run.progress.restart_epoch()
    run.hooks.fire(run.hooks.on_fit_start)
    _log_hyperparameters(run)
    if checkpoint is not None:
        restore_training(run, checkpoint, source)
    check_storable(run)


def _set_up(run: Run, fn: str) -> None:
    """Let everybody make what they have not made yet: data, and layers."""
    module, datamodule, trainer = run.module, run.datamodule, run.trainer
    strategy, precision = run.parts.strategy, run.parts.precision
    for owner in _present(datamodule, module):
        per_node = getattr(owner, "prepare_data_per_node", True)
        if (strategy.local_rank if per_node else strategy.global_rank) == 0:
            owner.prepare_data()
    strategy.barrier("prepare_data")
    stage = TrainerFn(fn)
    if datamodule is not None:
        datamodule.setup(stage=stage)
    for callback in run.callbacks:
        callback.setup(trainer, module, stage=stage)
    module.setup(stage=stage)
    with precision.module_init_context():
        module.configure_model()
    # Before weights are loaded: they are not to pass through another dtype.
    precision.convert_module(module)
    if fn == "fit":
        strategy.sync_layers(module)


def conclude(run: Run, fn: str) -> None:
    """Tell everybody that a run went well."""
    run.between_hooks()
    if fn == "fit":
        run.hooks.fire(run.hooks.on_fit_end)


def _share_folders(run: Run) -> None:
    """Have every process name the folders of the one that writes."""
    strategy, trainer = run.parts.strategy, run.trainer
    if strategy.world_size == 1:
        return
    own: Any = None
    if strategy.is_global_zero:
        versions = [logger.version for logger in trainer.loggers]
        own = (trainer.default_root_dir, versions)
    trainer.default_root_dir, versions = strategy.broadcast(own)
    for logger, version in zip(trainer.loggers, versions, strict=False):
        logger.adopt_version(version)


def _begin_profile(run: Run, fn: str) -> None:
    profiler = run.parts.profiler
    if isinstance(profiler, PassThroughProfiler):
        return  # asking for `log_dir` may make a folder
    profiler.attach(run.module)
    # One process has no need of its number in the names of files.
    strategy = run.parts.strategy
    local_rank = strategy.local_rank if strategy.world_size > 1 else None
    profiler.setup(fn, local_rank=local_rank, log_dir=run.trainer.log_dir)


def tell_of_exception(run: Run, error: BaseException) -> None:
    """Tell everybody that an exception ended the run, and the user what to do."""
    run.parts.strategy.on_exception(error)
    if (note := note_on(error)) is not None:
        add_note(error, note)
    actions = [
        partial(callback.on_exception, run.trainer, run.module, error)
        for callback in run.callbacks
    ]
    if run.datamodule is not None:
        actions.append(partial(run.datamodule.on_exception, error))
    _attempt_all(actions, error)


def teardown(run: Run, fn: str, error: BaseException | None) -> None:
    """Release what `setup` built and close the loggers; runs however the run ended."""
    status, stage = "success" if error is None else "failed", TrainerFn(fn)
    actions: list[Callable[[], Any]] = [
        partial(callback.teardown, run.trainer, run.module, stage=stage)
        for callback in run.callbacks
    ]
    if run.datamodule is not None:
        actions.insert(0, partial(run.datamodule.teardown, stage=stage))
    actions.append(partial(run.module.teardown, stage=stage))
    if run.compiling is not None:
        actions.append(run.compiling.end)
    actions.append(run.parts.precision.teardown)
    actions.append(run.parts.strategy.teardown)
    actions.append(run.parts.accelerator.teardown)
    actions.append(run.parts.strategy.checkpoint_io.teardown)
    # What one process has written, all find from here on.
    actions.append(run.parts.strategy.barrier)
    actions += [partial(logger.finalize, status) for logger in run.report.loggers]
    actions.append(run.parts.profiler.describe)
    _attempt_all(actions, error)


def _lend_log(run: Run) -> None:
    """Let `self.log` and `self.log_dict` of callbacks be the module's."""
    for callback in run.callbacks:
        for name in ("log", "log_dict"):
            if not hasattr(type(callback), name):
                setattr(callback, name, getattr(run.module, name))


def attach_callbacks(run: Run, extra: Callback | Iterable[Callback] | None) -> None:
    """Add the module's own callbacks, in place of the trainer's of the same type."""
    if not extra:
        return
    added = as_callbacks(extra, "configure_callbacks")
    replaced = {type(callback) for callback in added}
    kept = [callback for callback in run.callbacks if type(callback) not in replaced]
    run.callbacks[:] = ordered([*kept, *added])


def _check_module(run: Run, fn: str) -> None:
    module = run.module
    for name in _STEPS[fn]:
        if not run.overrides(name):
            raise MisconfigurationException(
                f"`trainer.{fn}()` needs `{name}`, which {type(module).__name__} does not "
                f"define.{hint_of_nearest(name, module, LightningModule)}"
            )
    stage = _STAGE_OF.get(fn, fn)
    if not run.source.has(stage):
        hook = f"{'val' if stage == 'validate' else stage}_dataloader"
        datamodule = run.datamodule
        owner = module if datamodule is None else datamodule
        hint = hint_of_nearest(hook, owner, DataHooks)
        raise MisconfigurationException(
            f"`trainer.{fn}()` needs data: "
            + ("pass loaders or a datamodule, or " if datamodule is None else "")
            + f"define `{hook}` in {type(owner).__name__}.{hint}"
        )


def _check_hooks(run: Run, fn: str) -> None:
    owners: list[tuple[object, type]] = [(run.module, LightningModule)]
    if run.datamodule is not None:
        owners.append((run.datamodule, LightningDataModule))
    owners += [(callback, Callback) for callback in run.callbacks]
    hooks = hooks_of(fn, validates=run.source.has("validate"))
    for owner, base in owners:
        check_hook_names(owner, base, REFUSED[fn] if owner is run.module else ())
        check_hook_signatures(owner, base, hooks)


def _validates(run: Run) -> bool:
    """Tell whether the fit has anything to validate with."""
    if run.parts.limit_val_batches == 0 or not run.source.has("validate"):
        return False
    if run.overrides("validation_step"):
        return True
    own = [name for name in vars(type(run.module)) if name != "validation_step"]
    near = nearest("validation_step", own)
    hint = f" Did you mean `validation_step` by `{near}`?" if near else ""
    rank_zero_warn(
        f"there is a validation loader, but {type(run.module).__name__} has no "
        f"`validation_step`: the fit does not validate.{hint}"
    )
    return False


def _check_manual(run: Run) -> None:
    if run.module.automatic_optimization:
        return
    flags = {
        "gradient_clip_val": run.parts.gradient_clip_val,
        "accumulate_grad_batches": run.trainer.accumulate_grad_batches - 1,
    }
    for flag, value in flags.items():
        if value:
            raise MisconfigurationException(
                f"`Trainer({flag}=...)` with manual optimization: the trainer does not see "
                "your gradients. Remove the flag and do it in `training_step`."
            )


def _log_hyperparameters(run: Run) -> None:
    owners = _present(run.datamodule, run.module)
    merged: dict[str, Any] = {}
    for owner in owners:
        if not owner.__dict__.get("_log_hyperparams", False):
            continue
        for name, value in owner.hparams_initial.items():
            if name == CLASS_PATH_KEY:
                continue
            if name in merged and _differ(merged[name], value):
                raise MisconfigurationException(
                    f"the module and the datamodule both have a hyperparameter {name!r}, "
                    f"with the values {value!r} and {merged[name]!r}. Rename one, or call "
                    "`self.save_hyperparameters(logger=False)` in one of them."
                )
            merged[name] = value
    for logger in run.report.loggers:
        if merged and run.parts.enable_autolog_hparams:
            logger.log_hyperparams(merged)
        logger.log_graph(run.module)
        logger.save()


def _differ(one: Any, other: Any) -> bool:
    try:
        return bool(one != other)
    except (ValueError, RuntimeError):  # arrays and tensors compare by element
        return one is not other


def _present(*owners: Any) -> list[Any]:
    return [owner for owner in owners if owner is not None]


def _attempt_all(
    actions: Iterable[Callable[[], Any]], error: BaseException | None
) -> None:
    """Run every clean-up action, also after one failed.

    An error in one is a note on the error that is on its way, else it is raised at the
    end.
    """
    first = error
    for action in actions:
        try:
            action()
        except Exception as another:
            if first is None:
                first = another
            else:
                add_note(
                    first, f"While cleaning up: {type(another).__name__}: {another}"
                )
    if first is not None and first is not error:
        raise first
