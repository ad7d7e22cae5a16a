"""Uses that several rules of behaviour ask for."""

SEVERAL_DEVICES = (
    "Trainer(devices=...)",
    "Trainer(devices=-1)",
    "Trainer(devices=[2-9]*)",
    "Trainer(devices=1[0-9]*)",
    "Trainer(devices='-1')",
    "Trainer(devices='[2-9]*')",
    "Trainer(devices='*,*')",
    "Trainer(devices=[[]*,*)",
    "Trainer(num_nodes)",
    "Trainer(strategy='ddp*')",
    "Trainer(strategy='fsdp*')",
    "strategies.DDPStrategy",
    "strategies.FSDPStrategy",
    "strategies.ModelParallelStrategy",
)
SYNCED = ("LightningModule.log(sync_dist)", "LightningModule.log_dict(sync_dist)")
CLI = "cli.LightningCLI"  # any flag may come from its command line
SCALER = (
    "Trainer(precision='16-mixed')",
    "Trainer(precision='16')",
    "Trainer(precision=16)",
    "Trainer(precision=...)",
    "plugins.MixedPrecision",
    CLI,
)
DOUBLE = (
    "Trainer(precision='64-true')",
    "Trainer(precision='64')",
    "Trainer(precision=64)",
    "plugins.DoublePrecision",
)
BY_HAND = ("LightningModule.manual_backward",)
STREAM = ("IterableDataset",)
SCHEDULED = ("callbacks.GradientAccumulationScheduler",)
ACCUMULATION = ("Trainer(accumulate_grad_batches)", *SCHEDULED)
RESUMED = ("Trainer.fit(ckpt_path)", CLI)
EVALUATED = (
    "Trainer.validate(ckpt_path)",
    "Trainer.test(ckpt_path)",
    "Trainer.predict(ckpt_path)",
)
AVERAGING = ("callbacks.WeightAveraging", "callbacks.EMAWeightAveraging")
ENDING_AT_A_STEP = (
    "CosineAnnealingLR",
    "OneCycleLR",
    "PolynomialLR",
)
STATE_OF_CALLBACKS = (
    "Callback.state_dict",
    "Callback.load_state_dict",
    "Callback.on_load_checkpoint",
    "callbacks.EarlyStopping.best_score",
    "callbacks.EarlyStopping.stopped_epoch",
    "callbacks.EarlyStopping.wait_count",
    "callbacks.ModelCheckpoint.best_k_models",
    "callbacks.ModelCheckpoint.best_model_score",
    "callbacks.ModelCheckpoint.current_score",
    "callbacks.ModelCheckpoint.kth_*",
)
