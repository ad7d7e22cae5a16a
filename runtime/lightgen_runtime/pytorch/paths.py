"""Where to find what Lightning has under a path of its own.

`MOVED` gives, for names below `lightning.pytorch`, the place below `lightgen_runtime`. All
other names have the same path in both packages.
"""

from __future__ import annotations

MOVED = {
    "accelerators.cpu.CPUAccelerator": "accelerators.accelerator.CPUAccelerator",
    "accelerators.cpu.get_cpu_stats": "accelerators.accelerator.get_cpu_stats",
    "accelerators.cuda.CUDAAccelerator": "accelerators.accelerator.CUDAAccelerator",
    "accelerators.mps.MPSAccelerator": "accelerators.accelerator.MPSAccelerator",
    "core.hooks.DataHooks": "core.data_hooks.DataHooks",
    "core.hooks.ModelHooks": "core.module_hooks.ModuleHooks",
    "core.mixins.HyperparametersMixin": "core.hparams.HyperparametersMixin",
    "core.mixins.hparams_mixin.HyperparametersMixin": (
        "core.hparams.HyperparametersMixin"
    ),
    "core.optimizer.LightningOptimizer": "core.optim.LightningOptimizer",
    "plugins.io.async_plugin.AsyncCheckpointIO": "plugins.io.AsyncCheckpointIO",
    "plugins.io.checkpoint_plugin.CheckpointIO": "plugins.io.CheckpointIO",
    "plugins.io.torch_plugin.TorchCheckpointIO": "plugins.io.TorchCheckpointIO",
    "plugins.precision.amp.MixedPrecision": "plugins.precision.MixedPrecision",
    "plugins.precision.double.DoublePrecision": "plugins.precision.DoublePrecision",
    "plugins.precision.half.HalfPrecision": "plugins.precision.HalfPrecision",
    "plugins.precision.precision.Precision": "plugins.precision.Precision",
    "strategies.single_device.SingleDeviceStrategy": (
        "strategies.single.SingleDeviceStrategy"
    ),
    "strategies.strategy.Strategy": "strategies.base.Strategy",
    "utilities.AttributeDict": "core.hparams.AttributeDict",
    "utilities.compile.from_compiled": "core.compiled.from_compiled",
    "utilities.compile.to_uncompiled": "core.compiled.to_uncompiled",
    "utilities.data.extract_batch_size": "core.metrics.find_batch_size",
    "utilities.model_summary.get_human_readable_count": (
        "utilities.model_summary.readable_count"
    ),
    "utilities.model_summary.model_summary.LayerSummary": (
        "utilities.model_summary.LayerSummary"
    ),
    "utilities.model_summary.model_summary.ModelSummary": (
        "utilities.model_summary.ModelSummary"
    ),
    "utilities.model_summary.model_summary.get_human_readable_count": (
        "utilities.model_summary.readable_count"
    ),
    "utilities.model_summary.model_summary.summarize": (
        "utilities.model_summary.summarize"
    ),
    "utilities.parsing.AttributeDict": "core.hparams.AttributeDict",
    "utilities.types.LRSchedulerConfig": "core.optim.SchedulerConfig",
}
