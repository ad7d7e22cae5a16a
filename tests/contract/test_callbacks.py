"""Callbacks on both packages: the same weights, logged values and state."""

from __future__ import annotations

import importlib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from recording import (
    OURS,
    REFERENCE,
    callbacks_of,
    data,
    memory_logger,
    quiet_trainer,
    small_module,
)
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import LambdaLR, StepLR
from torch.utils.data import DataLoader, IterableDataset

pytestmark = pytest.mark.filterwarnings("ignore")


def build(namespace: str, **methods: Any) -> Any:
    """Return a module with a backbone, a batch norm where asked for, and a head."""
    base = small_module(namespace)
    batch_norm = methods.pop("batch_norm", False)

    class Module(base):  # type: ignore[misc,valid-type]
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            norm = torch.nn.BatchNorm1d(3) if batch_norm else torch.nn.Identity()
            self.backbone = torch.nn.Sequential(torch.nn.Linear(4, 3), norm)
            self.layer = torch.nn.Linear(3, 1)

        def forward(self, x: Any) -> Any:
            return self.layer(self.backbone(x))

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self(batch).pow(2).mean()

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val_loss", self(batch).pow(2).mean())

        def test_step(self, batch: Any, batch_idx: int) -> None:
            self(batch)

        def predict_step(
            self, batch: Any, batch_idx: int, dataloader_idx: int = 0
        ) -> Any:
            return float(batch.sum())

    for name, value in methods.items():
        setattr(Module, name, value)
    return Module()


class Outcome:
    """What a fit with callbacks came to."""

    def __init__(
        self, namespace: str, make: Any, methods: dict[str, Any], **flags: Any
    ) -> None:
        self.logger = memory_logger(namespace)
        self.callbacks = make(callbacks_of(namespace))
        self.module = build(namespace, **methods)
        self.trainer = quiet_trainer(
            namespace,
            logger=self.logger,
            callbacks=self.callbacks,
            **{"max_epochs": 3, **flags},
        )
        self.trainer.fit(self.module, data(12, 2), data(4))

    @property
    def states(self) -> list[dict[str, Any]]:
        return [callback.state_dict() for callback in self.callbacks]


def compare(make: Any, methods: dict[str, Any] | None = None, **flags: Any) -> Any:
    """Fit on both packages; weights and what was logged must be the same."""
    ours = Outcome(OURS, make, dict(methods or {}), **flags)
    theirs = Outcome(REFERENCE, make, dict(methods or {}), **flags)
    expected = theirs.module.state_dict()
    assert ours.module.state_dict().keys() == expected.keys()
    for name, weights in ours.module.state_dict().items():
        assert torch.equal(weights, expected[name]), name
    assert [c.state_key for c in ours.callbacks] == [
        c.state_key for c in theirs.callbacks
    ]
    assert len(ours.logger.rows) == len(theirs.logger.rows)
    for mine, other in zip(ours.logger.rows, theirs.logger.rows, strict=True):
        assert mine[0] == other[0]
        assert mine[1] == pytest.approx(other[1])
    return ours, theirs


def sgd(self: Any) -> Any:
    trained = [p for p in self.parameters() if p.requires_grad]
    return SGD(trained, lr=0.1, momentum=0.9, weight_decay=0.01)


def stepping(self: Any) -> Any:
    optimizer = SGD(self.parameters(), lr=0.1)
    return [optimizer], [
        {"scheduler": LambdaLR(optimizer, lambda n: 0.9**n), "interval": "step"}
    ]


def named(self: Any) -> Any:
    optimizer = Adam(self.parameters(), lr=0.1)
    return [optimizer], [{"scheduler": StepLR(optimizer, 1), "name": "my rate"}]


def groups(self: Any) -> Any:
    return SGD(
        [
            {"params": self.backbone.parameters(), "lr": 0.01},
            {"params": self.layer.parameters(), "momentum": 0.5},
        ],
        lr=0.1,
    )


def named_groups(self: Any) -> Any:
    optimizer = SGD(
        [
            {"params": self.backbone.parameters(), "name": "slow"},
            {"params": self.layer.parameters(), "name": "fast"},
        ],
        lr=0.1,
    )
    return [optimizer], [StepLR(optimizer, 1)]


def two(self: Any) -> Any:
    self.automatic_optimization = False
    first = SGD(self.backbone.parameters(), lr=0.1)
    second = SGD(self.layer.parameters(), lr=0.2)
    third = Adam(self.layer.parameters(), lr=0.3)
    return [first, second, third], [StepLR(second, 1)]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"logging_interval": "step"},
        {"logging_interval": "epoch"},
        {"log_momentum": True, "log_weight_decay": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("configure", [sgd, stepping, named, groups, named_groups, two])
def test_learning_rates_are_logged_alike(configure: Any, arguments: Any) -> None:
    ours, theirs = compare(
        lambda c: [c.LearningRateMonitor(**arguments)],
        {"configure_optimizers": configure},
        log_every_n_steps=2,
    )
    assert ours.callbacks[0].lrs == theirs.callbacks[0].lrs
    rates = {k: float(v) for k, v in theirs.trainer.callback_metrics.items()}
    mine = {k: float(v) for k, v in ours.trainer.callback_metrics.items()}
    assert mine == pytest.approx(rates)


def test_learning_rates_of_groups_added_in_mid_fit() -> None:
    def make(callbacks: Any) -> list[Any]:
        return [
            callbacks.BackboneFinetuning(unfreeze_backbone_at_epoch=1),
            callbacks.LearningRateMonitor("epoch"),
        ]

    compare(make, {"configure_optimizers": sgd}, max_epochs=4)


# Windows that fill an epoch of 6 batches: the reference divides a shorter one wrongly.
@pytest.mark.parametrize("batches", [{0: 3}, {1: 6}, {0: 2, 2: 3}], ids=str)
def test_accumulation_by_epoch(batches: dict[int, int]) -> None:
    ours, theirs = compare(
        lambda c: [c.GradientAccumulationScheduler(batches)],
        {"configure_optimizers": sgd},
        log_every_n_steps=1,
    )
    assert ours.trainer.global_step == theirs.trainer.global_step


def test_accumulation_is_set_at_the_start_of_an_epoch() -> None:
    def windows(namespace: str) -> list[int]:
        def look(callback: Any, trainer: Any, *args: Any) -> None:
            seen.append(trainer.accumulate_grad_batches)

        seen: list[int] = []
        base = importlib.import_module(namespace).Callback
        hooks = ("on_train_start", "on_train_epoch_start", "on_train_epoch_end")
        watcher = type("Watcher", (base,), dict.fromkeys(hooks, look))()
        schedule = callbacks_of(namespace).GradientAccumulationScheduler({0: 2, 1: 4})
        trainer = quiet_trainer(namespace, max_epochs=2, callbacks=[watcher, schedule])
        trainer.fit(small_module(namespace)(), data())
        return seen

    assert windows("lightgen_runtime") == windows("lightning") == [1, 1, 2, 2, 4]


@pytest.mark.parametrize(
    "arguments",
    [
        {"swa_epoch_start": 2},
        {"swa_epoch_start": 0.5, "annealing_epochs": 2},
        {"swa_epoch_start": 1, "annealing_strategy": "linear", "annealing_epochs": 3},
        {"swa_epoch_start": 1.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("configure", [sgd, named])
def test_stochastic_weight_averaging(
    configure: Any, batch_norm: bool, arguments: dict[str, Any]
) -> None:
    ours, theirs = compare(
        lambda c: [c.StochasticWeightAveraging(0.05, **arguments)],
        {"configure_optimizers": configure, "batch_norm": batch_norm},
        max_epochs=5,
    )
    mine, other = ours.states[0], theirs.states[0]
    assert mine.keys() == other.keys()
    assert mine["n_averaged"] == other["n_averaged"]
    assert mine["latest_update_epoch"] == other["latest_update_epoch"]
    assert mine["scheduler_state"].keys() == other["scheduler_state"].keys()
    assert ours.trainer.current_epoch == theirs.trainer.current_epoch


@pytest.mark.parametrize(
    "make",
    [
        lambda c: [c.WeightAveraging()],
        lambda c: [c.EMAWeightAveraging(decay=0.8)],
        lambda c: [c.EMAWeightAveraging(decay=0.8, update_every_n_steps=3)],
        lambda c: [c.EMAWeightAveraging(decay=0.8, update_starting_at_step=5)],
        lambda c: [
            c.EMAWeightAveraging(
                decay=0.8, update_every_n_steps=0, update_starting_at_epoch=1
            )
        ],
        lambda c: [c.EMAWeightAveraging(decay=0.8, use_buffers=False)],
    ],
    ids=["mean", "ema", "every third", "from step 5", "by epoch", "no buffers"],
)
def test_weight_averaging(make: Any, tmp_path: Path) -> None:
    ours, theirs = compare(
        make,
        {"configure_optimizers": sgd, "batch_norm": True},
        accumulate_grad_batches=2,
    )
    assert ours.states == theirs.states
    files = []
    for outcome, name in ((ours, "ours"), (theirs, "theirs")):
        outcome.trainer.save_checkpoint(tmp_path / name)
        files.append(torch.load(tmp_path / name, weights_only=True))
    for key in ("state_dict", "current_model_state", "averaging_state"):
        assert files[0][key].keys() == files[1][key].keys()
        for name, value in files[1][key].items():
            assert torch.equal(files[0][key][name], value), (key, name)


@pytest.mark.parametrize("writer", [OURS, REFERENCE])
@pytest.mark.parametrize("name", ["EMAWeightAveraging", "StochasticWeightAveraging"])
def test_averaging_goes_on_from_the_other_package(
    name: str, writer: str, tmp_path: Path
) -> None:
    arguments: dict[str, Any] = {"decay": 0.5}
    if name == "StochasticWeightAveraging":
        arguments = {"swa_lrs": 0.05, "swa_epoch_start": 1, "annealing_epochs": 3}

    def fit(namespace: str, resume: Path | None = None) -> Any:
        averaging = getattr(callbacks_of(namespace), name)(**arguments)
        keep = callbacks_of(namespace).ModelCheckpoint(
            tmp_path / namespace, "{epoch}", save_top_k=-1
        )
        trainer = quiet_trainer(
            namespace,
            max_epochs=4,
            callbacks=[averaging, keep],
            enable_checkpointing=True,
        )
        module = build(namespace, configure_optimizers=sgd)
        trainer.fit(module, data(12, 2), data(4), ckpt_path=resume)
        return module.state_dict()

    uninterrupted = fit(writer)
    reader = REFERENCE if writer == OURS else OURS
    resumed = fit(reader, tmp_path / writer / "epoch=2.ckpt")
    for key, value in uninterrupted.items():
        assert torch.equal(resumed[key], value), key


@pytest.mark.parametrize(
    "arguments",
    [
        {"unfreeze_backbone_at_epoch": 1},
        {"unfreeze_backbone_at_epoch": 2, "backbone_initial_lr": 0.001},
        {"unfreeze_backbone_at_epoch": 1, "train_bn": False, "should_align": False},
        {"unfreeze_backbone_at_epoch": 1, "lambda_func": lambda epoch: 1.5},
        {"unfreeze_backbone_at_epoch": 9},
    ],
    ids=["soon", "own rate", "frozen norms", "own schedule", "never"],
)
def test_backbone_finetuning(arguments: dict[str, Any]) -> None:
    ours, theirs = compare(
        lambda c: [c.BackboneFinetuning(**arguments)],
        {"configure_optimizers": sgd, "batch_norm": True},
        max_epochs=5,
    )
    for key, value in theirs.states[0].items():
        assert ours.states[0][key] == value, key
    rates = [
        [g["lr"] for g in o.trainer.optimizers[0].param_groups] for o in (ours, theirs)
    ]
    assert rates[0] == rates[1]


def test_own_finetuning() -> None:
    def make(callbacks: Any) -> list[Any]:
        class Later(callbacks.BaseFinetuning):  # type: ignore[misc,name-defined]
            def freeze_before_training(self, pl_module: Any) -> None:
                self.freeze([pl_module.backbone[0], [pl_module.backbone[1]]])

            def finetune_function(
                self, pl_module: Any, epoch: int, optimizer: Any
            ) -> None:
                if epoch == 1:
                    self.unfreeze_and_add_param_group(pl_module.backbone, optimizer)

        return [Later()]

    compare(make, {"configure_optimizers": sgd, "batch_norm": True})


def test_finetuning_works_on_the_same_layers() -> None:
    found = []
    for namespace in (OURS, REFERENCE):
        tools = callbacks_of(namespace).BaseFinetuning
        net = torch.nn.Sequential(
            torch.nn.Linear(2, 2),
            torch.nn.ModuleDict({"norm": torch.nn.BatchNorm1d(2)}),
            torch.nn.TransformerEncoderLayer(4, 2),
        )
        tools.freeze(net, train_bn=True)
        names = {p: name for name, p in net.named_parameters()}
        nested = [net[0], [net[1]], torch.nn.ModuleDict({"x": net[2]})]
        found.append(
            (
                [type(m).__name__ for m in tools.flatten_modules(nested)],
                [names[p] for p in tools.filter_params(net)],
                [names[p] for p in tools.filter_params(net, requires_grad=False)],
                [names[p] for p in tools.filter_params(net, train_bn=False)],
                net[1]["norm"].track_running_stats,
            )
        )
    assert found[0] == found[1]


@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_timer_stops_and_keeps_its_state(interval: str) -> None:
    found = []
    for namespace in (OURS, REFERENCE):
        outcome = Outcome(
            namespace,
            lambda c: [c.Timer(timedelta(microseconds=1), interval, verbose=False)],
            {"configure_optimizers": sgd},
            num_sanity_val_steps=0,
        )
        timer = outcome.callbacks[0]
        assert timer.time_remaining() < 0 < timer.time_elapsed()
        assert timer.time_elapsed("test") == 0
        elapsed = timer.state_dict()["time_elapsed"]
        stages = {str(getattr(stage, "value", stage)) for stage in elapsed}
        found.append((outcome.trainer.global_step, timer.state_key, stages))
    assert found[0] == found[1]


def test_timer_takes_members_of_enumerations() -> None:
    for namespace in (OURS, REFERENCE):
        module = importlib.import_module(f"{namespace}.pytorch.callbacks.timer")
        timer = module.Timer(interval=module.Interval.epoch)
        trainer = quiet_trainer(namespace, callbacks=[timer], max_epochs=1)
        trainer.fit(build(namespace, configure_optimizers=sgd), data(4), data(4))
        stage = importlib.import_module("lightning.pytorch.trainer.states").RunningStage
        assert timer.time_elapsed(stage.TRAINING) > 0
        assert timer.start_time(stage.VALIDATING) < timer.end_time(stage.VALIDATING)
        assert timer.start_time(stage.TESTING) is None


def test_timer_reads_durations_alike() -> None:
    for duration in ("01:02:03:04", {"minutes": 5}, timedelta(hours=2), None):
        left = [
            callbacks_of(n).Timer(duration).time_remaining() for n in (OURS, REFERENCE)
        ]
        assert left[0] == left[1]


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(torch.arange(4.0))


def prediction_loaders() -> dict[str, Any]:
    numbers = torch.arange(5.0)
    generator = torch.Generator().manual_seed(3)
    return {
        "one": DataLoader(numbers, 2),
        "shuffled": DataLoader(numbers, 2, shuffle=True, generator=generator),
        "workers": DataLoader(numbers, 2, num_workers=2),
        "own sampler": DataLoader(numbers, 2, sampler=[4, 0, 2]),
        "several": [DataLoader(numbers, 2), DataLoader(numbers, 3)],
        "stream": DataLoader(Stream(), 2),
        "tensors": [torch.ones(2), torch.ones(1)],
    }


@pytest.mark.parametrize("interval", ["batch", "epoch", "batch_and_epoch"])
@pytest.mark.parametrize("kind", prediction_loaders())
@pytest.mark.parametrize("keep", [None, False])
def test_prediction_writers_get_the_same(
    kind: str, interval: str, keep: bool | None
) -> None:
    found = []
    for namespace in (OURS, REFERENCE):
        written: list[Any] = []
        base = callbacks_of(namespace).BasePredictionWriter

        class Writer(base):  # type: ignore[misc,valid-type]
            written: list[Any]

            def write_on_batch_end(
                self,
                trainer: Any,
                pl_module: Any,
                prediction: Any,
                batch_indices: Any,
                batch: Any,
                *numbers: int,
            ) -> None:
                self.written.append((prediction, batch_indices, *numbers))

            def write_on_epoch_end(
                self, trainer: Any, module: Any, predictions: Any, batch_indices: Any
            ) -> None:
                self.written.append((list(predictions), list(batch_indices)))

        writer = Writer(interval)
        writer.written = written
        trainer = quiet_trainer(namespace, callbacks=[writer])
        loaders = prediction_loaders()[kind]
        if kind == "shuffled":  # the reference draws its own order
            torch.manual_seed(3)
        returned = trainer.predict(build(namespace), loaders, return_predictions=keep)
        if kind == "shuffled":
            written = [len(entry) for entry in written]
            returned = None
        found.append((written, returned))
    assert found[0] == found[1]


def test_lambda_callback_is_called_alike() -> None:
    names = [
        *("setup", "teardown", "on_fit_start", "on_train_batch_start"),
        *("on_train_batch_end", "on_train_epoch_end", "on_validation_epoch_end"),
        *("on_before_backward", "on_before_optimizer_step", "on_train_end"),
    ]
    logs = []
    for namespace in (OURS, REFERENCE):
        log: list[Any] = []

        def note(name: str, log: list[Any] = log) -> Any:
            return lambda trainer, module, *args, **kwargs: log.append(
                (name, len(args), kwargs)
            )

        Outcome(
            namespace,
            lambda c, note=note: [c.LambdaCallback(**{n: note(n) for n in names})],
            {"configure_optimizers": sgd},
            max_epochs=1,
        )
        logs.append(log)
    assert logs[0] == logs[1]
    assert {name for name, *_ in logs[0]} == set(names)


def test_exception_leaves_a_checkpoint_and_success_removes_it(tmp_path: Path) -> None:
    class Failure(Exception):
        pass

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        if self.trainer.global_step == 4 and self.fails:
            raise Failure
        return self(batch).pow(2).mean()

    for namespace in (OURS, REFERENCE):
        folder = tmp_path / namespace
        methods = {"training_step": training_step, "configure_optimizers": sgd}
        module = build(namespace, fails=True, **methods)
        callback = callbacks_of(namespace).OnExceptionCheckpoint(folder)
        trainer = quiet_trainer(
            namespace, callbacks=[callback], max_epochs=1, enable_checkpointing=None
        )
        with pytest.raises(Failure):
            trainer.fit(module, data(12, 2))
        assert callback.ckpt_path == str(folder / "on_exception.ckpt")
        saved = torch.load(callback.ckpt_path, weights_only=True)
        assert saved["global_step"] == 4
        module.fails = False
        trainer.fit(module, data(12, 2))
        assert not list(folder.iterdir())


@pytest.mark.parametrize(
    "arguments", [{"window_size": 3}, {"window_size": 2, "separator": "|"}], ids=str
)
def test_throughput_is_logged_under_the_same_keys(arguments: dict[str, Any]) -> None:
    rows = []
    for namespace in (OURS, REFERENCE):
        outcome = Outcome(
            namespace,
            lambda c: [
                c.ThroughputMonitor(len, lambda batch: batch.numel(), **arguments)
            ],
            {"configure_optimizers": sgd, "flops_per_batch": 100},
            log_every_n_steps=2,
        )
        counts = ("batches", "samples", "lengths")
        rows.append(
            [
                (step, {k: v if k.endswith(counts) else None for k, v in row.items()})
                for step, row in outcome.logger.rows
            ]
        )
    assert rows[0] == rows[1]


def test_throughput_computes_the_same() -> None:
    ours = importlib.import_module("lightgen_runtime.utilities.throughput")
    theirs = importlib.import_module("lightning.fabric.utilities.throughput")
    for world_size in (1, 4):
        results = []
        for package in (ours, theirs):
            meter = package.Throughput(1e4, world_size, window_size=3)
            found = []
            for n in range(1, 6):
                meter.update(
                    time=n**1.5, batches=n, samples=4 * n, lengths=32 * n, flops=70 + n
                )
                found.append(meter.compute())
            results.append(found)
        for mine, other in zip(*results, strict=True):
            assert mine == pytest.approx(other)


def test_flops_are_counted_alike() -> None:
    counts = []
    for name in ("lightgen_runtime.utilities.throughput", "lightning.fabric.utilities"):
        package = importlib.import_module(
            name if name.startswith("lightgen") else f"{name}.throughput"
        )
        with torch.device("meta"):
            net, batch = torch.nn.Linear(8, 4), torch.empty(2, 8)
        counts.append(
            package.measure_flops(
                net, lambda net=net, batch=batch: net(batch), torch.sum
            )
        )
    assert counts[0] == counts[1] > 0


def test_device_stats_are_logged_under_the_same_keys() -> None:
    pytest.importorskip("psutil")
    rows = []
    for namespace in (OURS, REFERENCE):
        outcome = Outcome(
            namespace,
            lambda c: [c.DeviceStatsMonitor()],
            {"configure_optimizers": sgd},
            log_every_n_steps=2,
            max_epochs=1,
        )
        outcome.trainer.test(outcome.module, data(4), verbose=False)
        rows.append([(step, sorted(row)) for step, row in outcome.logger.rows])
    assert rows[0] == rows[1]
    hooks = {key.partition("/")[0] for _, keys in rows[0] for key in keys}
    assert hooks > {
        f"DeviceStatsMonitor.on_{stage}_batch_{part}"
        for stage in ("train", "validation", "test")
        for part in ("start", "end")
    }
