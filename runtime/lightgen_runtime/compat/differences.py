"""Why a public name of Lightning is absent or has another signature here, and what to do.

The one place where this is written down, beside `behaviour`: `docs/compat/names.md` and
`python -m lightgen_runtime.compat check` both read it, and a test compares it with both
packages. Names are patterns, as in a shell, without `lightning.pytorch.`: `callbacks.Timer`,
`Trainer.fit`, `Trainer(plugins)` for an argument. The first rule that fits counts.
"""

from __future__ import annotations

from lightgen_runtime.compat.rules import Rule
from lightgen_runtime.strategies.named import UNCALLED as UNCALLED_IN_STRATEGIES
from lightgen_runtime.trainer.plugged import UNCALLED

# ---- names that are absent, and arguments that are not the same ----

GAPS = (
    # hardware and packages
    Rule(
        ("*XLA*",),
        "TPUs are not supported",
    ),
    Rule(
        (
            "*DeepSpeed*",
            "strategies.deepspeed.remove_module_hooks",
            "utilities.deepspeed.*",
            "utilities.model_summary.model_summary_deepspeed.deepspeed_param_size",
        ),
        "DeepSpeed is not supported",
    ),
    Rule(
        ("*BitsandbytesPrecision",),
        "quantised layers belong to the model",
        "build the module with the layers of bitsandbytes",
    ),
    Rule(
        ("*TransformerEnginePrecision",),
        "layers of Transformer Engine belong to the model",
        "build the module with them",
    ),
    Rule(
        ("*FSDPPrecision",),
        "a strategy takes what it needs of any precision",
        'use `Trainer(precision="bf16-mixed")` or another name',
    ),
    Rule(
        ("LightningModule.configure_sharded_model",),
        "Lightning has replaced it",
        "define `configure_model`",
    ),
    Rule(
        (
            "strategies.FSDPStrategy(sharding_strategy)",
            "strategies.FSDPStrategy(activation_checkpointing*)",
        ),
        "this is torch's `fully_shard`, which has no such option",
        "for what takes its place, see the message of the error",
    ),
    Rule(
        ("strategies.ModelParallelStrategy(save_distributed_checkpoint)",),
        "a checkpoint is one file, which loads anywhere, unless parts are asked for",
    ),
    Rule(
        ("plugins.LayerSync", "plugins.TorchSyncBatchNorm", "plugins.layer_sync.*"),
        "no plugin converts layers",
        "pass `Trainer(sync_batchnorm=True)`",
    ),
    Rule(
        ("Trainer.distributed_sampler_kwargs",),
        "loaders are shared out without being built anew",
        "for another split, give the loader a `DistributedSampler`",
    ),
    Rule(
        tuple(f"plugins.*Precision.{method}" for method in UNCALLED),
        "a precision converts modules and batches and wraps steps; the loops do the rest",
        "see `lightgen_runtime/precision/base.py`",
    ),
    Rule(
        ("plugins.TorchCheckpointIO.load_checkpoint(map_location)",),
        "both keep tensors in host memory by default",
    ),
    Rule(
        ("accelerators.AcceleratorRegistry",),
        "there is no registry",
        "pass the object to `Trainer`",
    ),
    Rule(
        ("*.register_accelerators",),
        "there is no registry",
    ),
    Rule(
        ("*.register_strategies",),
        "names are given in one place",
        "call `StrategyRegistry.register(name, strategy)`",
    ),
    Rule(
        ("strategies.*Strategy.block_backward_sync",),
        "it has another name",
        "use `no_sync`",
    ),
    Rule(
        tuple(f"strategies.*Strategy.{name}" for name in UNCALLED_IN_STRATEGIES),
        "a strategy places the module, talks to other processes and writes files; the "
        "loops do the rest",
        "see `lightgen_runtime/strategies/base.py`",
    ),
    Rule(
        tuple(
            f"strategies.*Strategy.{name}"
            for name in (
                *("accelerator", "optimizers", "precision_plugin"),
                *("num_nodes", "lr_scheduler_configs", "distributed_sampler_kwargs"),
            )
        ),
        "the trainer has what is not about devices and processes",
        "ask it: `trainer.optimizers`, `trainer.num_nodes`, ...",
    ),
    Rule(
        (
            "strategies.Strategy.*",
            "strategies.Strategy(*)",
            "strategies.SingleDeviceStrategy.*",
            "strategies.SingleDeviceStrategy(*)",
            "strategies.DDPStrategy.*",
            "strategies.DDPStrategy(*)",
            "strategies.FSDPStrategy.*",
            "strategies.FSDPStrategy(*)",
            "strategies.ModelParallelStrategy.*",
            "strategies.ParallelStrategy(*)",
        ),
        "a strategy places the module, talks to other processes and writes files; the "
        "loops do the rest",
    ),
    Rule(
        ("accelerators.CUDAAccelerator.set_nvidia_flags",),
        "the strategy sets devices up; an accelerator only says what there is",
    ),
    Rule(
        (
            "accelerators.cuda.get_nvidia_gpu_stats",
            "accelerators.mps.get_device_stats",
        ),
        "a method of the accelerator",
        "call `get_device_stats` of it",
    ),
    # Trainer
    Rule(
        ("utilities.model_registry.*",),
        "there is no registry of models",
        "download the file first",
    ),
    Rule(
        ("LightningModule.to_tensorrt",),
        "for one vendor's compiler",
        "call `torch_tensorrt.compile`",
    ),
    Rule(
        ("plugins.precision.double.LightningDoublePrecisionModule",),
        "nothing wraps the module",
    ),
    Rule(
        ("callbacks.SpikeDetection.running_mean",),
        "the mean needs no metric object",
    ),
    Rule(
        ("Trainer.validate_loop", "Trainer.test_loop"),
        "there are no loop objects",
        "counters are in `trainer.progress`, limits are attributes of the trainer",
    ),
    Rule(
        (
            "loops.*",
            "utilities.signature_utils.*",
            "core.optimizer.do_nothing_closure",
            "core.module.MODULE_OPTIMIZERS",
            "utilities.data.BType",
            "utilities.data.has_len_all_ranks",
        ),
        "the inside of Lightning's loops, which are other ones here",
    ),
    Rule(
        ("overrides.distributed.*",),
        "the inside of Lightning's strategies, which are other ones here",
    ),
    # modules and data
    Rule(
        ("core.hooks.CheckpointHooks",),
        "its two methods are `LightningModule`'s and `LightningDataModule`'s own",
    ),
    Rule(
        ("LightningModule.fabric",),
        "there is no Fabric",
    ),
    Rule(
        ("*.CHECKPOINT_HYPER_PARAMS_TYPE",),
        "the inside of `save_hyperparameters`",
    ),
    Rule(
        ("LightningDataModule.available", "LightningDataModule.length"),
        "the inside of `from_datasets`",
    ),
    Rule(
        ("core.optimizer.LightningOptimizer(optimizer)",),
        "only the trainer makes one",
        "`self.optimizers()` returns them",
    ),
    Rule(
        ("core.optimizer.LightningOptimizer.step",),
        "a property that returns the method; it is called in the same way",
    ),
    Rule(
        ("core.saving.*", "utilities.parsing.*", "utilities.*is_picklable"),
        "the inside of `save_hyperparameters` and `load_from_checkpoint`",
    ),
    Rule(
        ("utilities.types.LRSchedulerConfig(*)",),
        "made by the trainer",
        "return a dictionary",
    ),
    Rule(
        ("utilities.types.DistributedDataParallel",),
        "torch's class is the type",
        "`torch.nn.parallel.DistributedDataParallel`",
    ),
    Rule(
        (
            "utilities.CombinedLoader.batch_sampler",
            "utilities.CombinedLoader.limits",
            "utilities.CombinedLoader.reset",
            "utilities.CombinedLoader.sampler",
        ),
        "the loops count and wrap by themselves",
    ),
    # callbacks
    Rule(
        ("callbacks.BatchSizeFinder.setup(stage)",),
        "the trainer always says the stage",
    ),
    Rule(
        ("callbacks.StochasticWeightAveraging.momenta",),
        "the inside of the callback",
    ),
    Rule(
        ("callbacks.*ModelSummary.summarize",),
        "the table is printed from a record",
        "override `on_fit_start`, and make a `utilities.model_summary.ModelSummary`",
    ),
    Rule(
        ("callbacks.RichProgressBar(theme)",),
        "the looks are Rich's own",
        "pass a `RichProgressBarTheme` for others",
    ),
    Rule(
        (
            "callbacks.RichProgressBar.*_bar_id",
            "callbacks.progress.rich_progress.*",
        ),
        "the inside of Lightning's bar",
        "subclass `ProgressBar` for a bar of your own",
    ),
    Rule(
        ("callbacks.progress.tqdm_progress.*",),
        "the inside of Lightning's bar",
        "`TQDMProgressBar` has the same methods to override",
    ),
    # loggers, profilers
    Rule(
        ("loggers.*CometLogger", "loggers.comet.*", "loggers.*LitLogger"),
        "these services have no logger here",
        "subclass `Logger`",
    ),
    Rule(
        ("loggers.neptune.NeptuneLogger",),
        "Lightning 2.6.6 has withdrawn it too",
        "subclass `Logger`",
    ),
    Rule(
        ("loggers.logger.merge_dicts",),
        "the inside of Lightning's loggers",
    ),
    Rule(
        ("loggers.csv_logs.ExperimentWriter",),
        "`CSVLogger` writes by itself",
    ),
    Rule(
        ("loggers.WandbLogger.add_file_policy",),
        "the value is not kept under this name",
    ),
    Rule(
        ("profilers.pytorch.ScheduleWrapper",),
        "the inside of `PyTorchProfiler`",
    ),
    # command line
    Rule(
        ("cli.LightningArgumentParser(description)",),
        "another text",
    ),
    Rule(
        ("cli.LightningCLI.config_dump",),
        "the config is not kept as text",
        "`yaml.safe_load(cli.parser.dump(cli.config))`",
    ),
    # utilities
    Rule(
        (
            "utilities.*rank_zero_info(stacklevel)",
            "utilities.*rank_zero_debug(stacklevel)",
        ),
        "a message says no place",
        "leave it out",
    ),
    Rule(
        ("utilities.*(stacklevel)",),
        "2 is the caller of your function; Lightning counts frames of its own in",
        "leave it out",
    ),
    Rule(
        ("utilities.FLOAT*_EPSILON",),
        "torch has it",
        "`torch.finfo(dtype).eps`",
    ),
    Rule(
        ("utilities.is_shared_filesystem",),
        "nothing here asks",
    ),
    Rule(
        ("utilities.migration.*", "utilities.upgrade_checkpoint.*"),
        "files of Lightning 2 are read as they are",
        "upgrade older ones with Lightning's own command",
    ),
    Rule(
        ("utilities.model_helpers.get_torchvision_model",),
        "torchvision has it",
        "`torchvision.models.get_model`",
    ),
    Rule(
        ("utilities.model_helpers.is_overridden",),
        "Python says it",
        "compare `type(x).method` with the method of the base class",
    ),
    Rule(
        ("utilities.model_summary.*",),
        "the table leaves sizes of inputs and outputs out; `ModelSummary(...).layers` has "
        "its rows",
    ),
    Rule(
        ("utilities.GradClipAlgorithmType.*", "utilities.LightningEnum.try_from_str"),
        "an enumeration is asked directly",
        "`from_str`, or iterate over it",
    ),
    # what is no part of a runtime
    Rule(
        ("serve.*",),
        "serving is not part of the runtime",
        "save the weights and load them in the server",
    ),
    Rule(
        ("cli_lightning_logo", "LIGHTNING_LOGO"),
        "pictures of Lightning's logo",
    ),
    Rule(
        ("demos.DemoModel.training_step(batch_nb)",),
        "named `batch_idx` here as everywhere",
    ),
    Rule(
        ("demos.*",),
        "examples of Lightning's documentation and tests",
        "copy what you need of them",
    ),
    Rule(
        ("lightning.Fabric", "lightning.fabric"),
        "there is no Fabric; `compat run` finds what people use without it, such as "
        "`lightning.fabric.utilities.seed`, where `lightning.pytorch` has it",
    ),
)

# ---- strings that `Trainer` does not take ----

VALUES = (
    Rule(
        ("Trainer(strategy='deepspeed')", "Trainer(strategy='deepspeed_stage_*')"),
        "DeepSpeed is not supported",
    ),
    Rule(
        (
            "Trainer(strategy='xla')",
            "Trainer(strategy='single_xla')",
            "Trainer(accelerator='tpu')",
            "Trainer(profiler='xla')",
        ),
        "TPUs are not supported",
    ),
    Rule(
        ("Trainer(precision='transformer-engine*')",),
        "layers of Transformer Engine belong to the model",
        "build the module with them",
    ),
)
