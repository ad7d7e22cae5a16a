"""Arguments that `Trainer` does not have: what a user most likely means by them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from lightgen_runtime.utilities.exceptions import UnknownArgumentError
from lightgen_runtime.utilities.nearest import nearest

Init = TypeVar("Init", bound=Callable[..., None])

# Arguments of Lightning 1.x, and what does their work.
RETIRED_ARGUMENTS = {
    "amp_backend": "leave it out: there is one, torch's own",
    "amp_level": "leave it out, and choose with precision=...",
    "auto_lr_find": "use `Tuner(trainer).lr_find(model)` from lightgen_runtime.tuner",
    "auto_scale_batch_size": "use `Tuner(trainer).scale_batch_size(model)` from "
    "lightgen_runtime.tuner",
    "auto_select_gpus": 'use devices="auto"',
    "auto_select_devices": 'use devices="auto"',
    "checkpoint_callback": "use enable_checkpointing=True or False, or give a "
    "`ModelCheckpoint` in callbacks=[...]",
    "distributed_backend": "use strategy=...",
    "flush_logs_every_n_steps": "give it to the logger, as in "
    "`CSVLogger(..., flush_logs_every_n_steps=100)`",
    "gpus": 'use accelerator="gpu", devices=...',
    "ipus": "use accelerator=..., devices=...",
    "log_gpu_memory": "give a `DeviceStatsMonitor` in callbacks=[...]",
    "log_save_interval": "use log_every_n_steps=...",
    "move_metrics_to_cpu": "leave it out: metrics stay where they are and are small",
    "multiple_trainloader_mode": "wrap the loaders in `CombinedLoader(loaders, mode)`",
    "num_processes": 'use accelerator="cpu", devices=...',
    "prepare_data_per_node": "set the attribute of that name of the datamodule",
    "process_position": "give a `TQDMProgressBar(process_position=...)` in "
    "callbacks=[...]",
    "progress_bar_refresh_rate": "use enable_progress_bar=False for none, or give a "
    "`TQDMProgressBar(refresh_rate=...)` in callbacks=[...]",
    "reload_dataloaders_every_epoch": "use reload_dataloaders_every_n_epochs=1",
    "replace_sampler_ddp": "use use_distributed_sampler=...",
    "resume_from_checkpoint": "use `trainer.fit(model, ckpt_path=...)`",
    "stochastic_weight_avg": "give a `StochasticWeightAveraging` in callbacks=[...]",
    "terminate_on_nan": "use detect_anomaly=True to find where, or give an "
    '`EarlyStopping("train_loss", check_finite=True)` in callbacks=[...]',
    "tpu_cores": "use accelerator=..., devices=...",
    "track_grad_norm": "call `self.log_dict(grad_norm(self, norm_type=2))` in "
    "`on_before_optimizer_step`; it is in lightgen_runtime.utilities.grads",
    "truncated_bptt_steps": "set `self.automatic_optimization = False` and step after "
    "each part of the sequence",
    "weights_save_path": "use default_root_dir=..., or `ModelCheckpoint(dirpath=...)`",
    "weights_summary": "use enable_model_summary=True or False, or give a "
    "`ModelSummary(max_depth=...)` in callbacks=[...]",
}
# Nothing in their spelling leads there.
_OTHER_NAMES = {
    "epochs": "max_epochs",
    "num_epochs": "max_epochs",
    "steps": "max_steps",
    "device": "accelerator",
    "root_dir": "default_root_dir",
    "grad_clip": "gradient_clip_val",
    "resume": "resume_from_checkpoint",
}


def refuse_unknown_arguments(init: Init) -> Init:
    """Let a constructor that takes keywords only name what an unknown one should be.

    Raises:
        UnknownArgumentError: From the constructor: an argument has no or a wrong name.
    """
    known = list(inspect.signature(init).parameters)[1:]

    @wraps(init)
    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        if args:
            raise UnknownArgumentError(
                f"`Trainer` got {args[0]!r} without a name; all of its arguments have one, "
                "as in `Trainer(max_epochs=3)`"
            )
        for name in kwargs:
            if name not in known:
                raise UnknownArgumentError(_explained(name, known))
        init(self, **kwargs)

    return cast(Init, checked)


def _explained(name: str, known: list[str]) -> str:
    meant = _OTHER_NAMES.get(name, name)
    said = f"`Trainer` got an unexpected argument {name!r}"
    if meant in RETIRED_ARGUMENTS:
        return f"{said}, which Lightning 1 had: {RETIRED_ARGUMENTS[meant]}"
    if near := nearest(meant, known):
        return f"{said}; did you mean {near!r}?"
    return f"{said}; it has {', '.join(known)}"
