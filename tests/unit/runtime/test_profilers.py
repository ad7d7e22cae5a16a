"""The `profiler` flag and what each profiler reports."""

from __future__ import annotations

import json
import pickle
import pstats
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import Small, fitted, loader, quiet, variant
from torch.profiler import ProfilerAction

from lightgen_runtime import Callback
from lightgen_runtime.profilers import (
    AdvancedProfiler,
    PassThroughProfiler,
    Profiler,
    PyTorchProfiler,
    SimpleProfiler,
)
from lightgen_runtime.utilities.exceptions import MisconfigurationException


class Noting(Profiler):
    """Write down what is started and stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.setups: list[tuple[Any, ...]] = []

    def start(self, action_name: str) -> None:
        self.calls.append(f"+{action_name}")

    def stop(self, action_name: str) -> None:
        self.calls.append(f"-{action_name}")

    def setup(
        self, stage: str, local_rank: int | None = None, log_dir: str | None = None
    ) -> None:
        super().setup(stage, local_rank, log_dir)
        self.setups.append((stage, local_rank, log_dir))

    def summary(self) -> str:
        return f"{self.title()}: {len(self.calls)} calls\n"


@pytest.mark.parametrize(
    ("flag", "kind"),
    [
        (None, PassThroughProfiler),
        ("simple", SimpleProfiler),
        ("Advanced", AdvancedProfiler),
        ("pytorch", PyTorchProfiler),
    ],
)
def test_flag_names_a_profiler(flag: str | None, kind: type) -> None:
    assert type(quiet(profiler=flag).profiler) is kind


def test_profiler_can_be_given() -> None:
    profiler = SimpleProfiler()
    assert quiet(profiler=profiler).profiler is profiler


@pytest.mark.parametrize("flag", ["simpel", 3, True])
def test_other_flags_are_refused(flag: Any) -> None:
    with pytest.raises(
        MisconfigurationException, match="'advanced', 'pytorch'"
    ) as info:
        quiet(profiler=flag)
    assert ("Did you mean 'simple'?" in str(info.value)) is (flag == "simpel")


def test_without_profiler_nothing_is_wrapped() -> None:
    class Listening(Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            listeners = trainer._run.hooks.on_train_start
            assert listeners.callbacks == (self.on_train_start,)
            step = trainer._run.measured("step", pl_module.training_step)
            assert step == pl_module.training_step
            items = iter([1])
            assert trainer._run.measured_items("items", items) is items
            reached.append(True)

    reached: list[bool] = []
    fitted(Small(), callbacks=[Listening()])
    assert reached


def test_profiled_fit_trains_the_same_weights() -> None:
    plain, profiled = Small(), Small()
    fitted(plain, max_epochs=2)
    fitted(profiled, max_epochs=2, profiler="simple")
    assert torch.equal(plain.layer.weight, profiled.layer.weight)


def test_actions_nest_and_the_lifecycle_is_told(tmp_path: Path) -> None:
    profiler = Noting()
    trainer = quiet(profiler=profiler, default_root_dir=tmp_path)
    trainer.fit(Small(), loader(2))
    trainer.test(Small(), loader(2), verbose=False)
    assert profiler.calls[:6] == [
        "+run_training_epoch",
        "+[_TrainingEpochLoop].train_dataloader_next",
        "-[_TrainingEpochLoop].train_dataloader_next",
        "+run_training_batch",
        "+[LightningModule]Small.optimizer_step",
        "+[Strategy]SingleDeviceStrategy.training_step",
    ]
    assert "+[_EvaluationLoop].test_next" in profiler.calls
    folder = str(tmp_path)
    assert profiler.setups == [("fit", None, folder), ("test", None, folder)]


def test_manual_steps_and_predictions_are_measured() -> None:
    def training_step(self: Any, batch: Any, batch_idx: int) -> None:
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(self(batch).mean())
        optimizer.step()

    profiler = Noting()
    module = variant(training_step=training_step)
    module.automatic_optimization = False
    trainer = quiet(profiler=profiler)
    trainer.fit(module, loader(4))
    trainer.predict(module, loader(4))
    assert profiler.calls.count("+[Strategy]SingleDeviceStrategy.training_step") == 2
    assert profiler.calls.count("+[_PredictionLoop].predict_next") == 2
    assert profiler.calls.count("-[Strategy]SingleDeviceStrategy.predict_step") == 2


def test_saving_a_checkpoint_is_measured(tmp_path: Path) -> None:
    profiler = Noting()
    trainer = quiet(profiler=profiler)
    trainer.fit(Small(), loader(2))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    assert profiler.calls[-2:] == ["+save_checkpoint", "-save_checkpoint"]


def test_failing_run_stops_its_actions_and_reports(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def training_step(self: Any, batch: Any, batch_idx: int) -> None:
        raise RuntimeError("of the user")

    profiler = SimpleProfiler()
    with pytest.raises(RuntimeError, match="of the user"):
        fitted(variant(training_step=training_step), profiler=profiler)
    assert profiler.current_actions == {}
    assert "SingleDeviceStrategy.training_step" in profiler.summary()


def test_report_is_written_or_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = quiet(profiler=Noting(), default_root_dir=tmp_path)
    with caplog.at_level("INFO", "lightgen_runtime"):
        trainer.fit(Small(), loader(2))
    assert "FIT Profiler Report: " in caplog.text
    assert list(tmp_path.iterdir()) == []

    profiler = SimpleProfiler(filename="perf")
    trainer = quiet(profiler=profiler, default_root_dir=tmp_path)
    trainer.fit(Small(), loader(2))
    trainer.test(Small(), loader(2), verbose=False)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["fit-perf.txt", "test-perf.txt"]


def test_simple_report_has_a_row_for_each_action() -> None:
    profiler = SimpleProfiler()
    profiler.recorded_durations = {"short": [0.25, 0.25], "long": [2.0]}  # type: ignore[assignment]
    lines = profiler.summary().splitlines()
    assert lines[0] == "Profiler Report"
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[3:]]
    assert rows[0][:2] == ["Action", "Mean duration (s)"]
    assert rows[2][:3] == ["Total", "-", "3"]
    assert rows[3][:4] == ["long", "2.0", "1", "2.0"]
    assert rows[4][:4] == ["short", "0.25", "2", "0.5"]
    assert len({len(line) for line in lines[2:]}) == 1

    profiler.extended = False
    short = profiler.summary().splitlines()
    assert [cell.strip() for cell in short[5].split("|")[1:-1]] == [
        "long",
        "2.0",
        "2.0",
    ]


def test_simple_report_of_nothing() -> None:
    assert SimpleProfiler().summary() == "Profiler Report\n"


def _spin() -> int:
    return sum(number for number in range(100))


def test_advanced_gives_nested_time_to_the_inner_action_and_goes_on() -> None:
    profiler = AdvancedProfiler()
    with profiler.profile("outer"):
        with profiler.profile("inner"):
            _spin()
        _spin()
        _spin()
    report = profiler.summary()
    outer, inner = report.split("Profile stats for: inner")
    assert "_spin" in outer
    assert "_spin" in inner
    calls = [line.split()[0] for line in report.splitlines() if "(_spin)" in line]
    assert calls == ["2", "1"]
    with pytest.raises(ValueError, match="'other' is stopped but never started"):
        profiler.stop("other")
    profiler.teardown(None)
    assert profiler.profiled_actions == {}


def test_advanced_limits_its_lines_and_dumps_what_it_recorded(tmp_path: Path) -> None:
    profiler = AdvancedProfiler(tmp_path, line_count_restriction=1, dump_stats=True)
    with profiler.profile("a/b"):
        _spin()
    assert "due to restriction <1>" in profiler.summary()
    stats: Any = pstats.Stats(str(tmp_path / "a_b.prof"))
    assert any(name == "_spin" for _, _, name in stats.stats)


@pytest.mark.parametrize("kind", [SimpleProfiler, AdvancedProfiler, PyTorchProfiler])
def test_profilers_can_be_pickled(kind: type[Profiler], tmp_path: Path) -> None:
    profiler = kind(tmp_path, "name")
    with profiler.profile("a"):
        pass
    other = pickle.loads(pickle.dumps(profiler))
    assert (other.dirpath, other.filename) == (tmp_path, "name")


def traced(folder: Path, kind: str) -> list[str]:
    """Return the names of all events in the trace of a kind of step."""
    (path,) = folder.glob(f"*{kind}*.pt.trace.json")
    return [event["name"] for event in json.loads(path.read_text())["traceEvents"]]


def test_pytorch_records_a_window_of_each_kind_of_step(tmp_path: Path) -> None:
    profiler = PyTorchProfiler(tmp_path, "ops")
    trainer = quiet(profiler=profiler, max_epochs=2)
    trainer.fit(Small(), loader(20), loader(10))

    action = "[pl][profile][Strategy]SingleDeviceStrategy"
    training = traced(tmp_path, "training_step")
    assert training.count(f"{action}.training_step") == 3
    assert training.count("[pl][profile][LightningModule]Small.optimizer_step") == 3
    assert training.count("[pl][module]torch.nn.modules.linear.Linear: layer") == 3
    assert f"{action}.validation_step" not in training
    assert traced(tmp_path, "validation_step").count(f"{action}.validation_step") == 3

    text = (tmp_path / "fit-ops.txt").read_text()
    assert "Profile stats for: training_step" in text
    assert "aten::linear" in text
    assert not trainer.lightning_module.layer._forward_hooks


def test_pytorch_records_all_of_a_short_run(tmp_path: Path) -> None:
    quiet(profiler=PyTorchProfiler(tmp_path)).fit(Small(), loader(4))
    action = "[pl][profile][Strategy]SingleDeviceStrategy.training_step"
    assert traced(tmp_path, "training_step").count(action) == 2


def test_pytorch_follows_a_schedule_of_the_users(tmp_path: Path) -> None:
    ready: list[Any] = []
    profiler = PyTorchProfiler(
        tmp_path,
        schedule=torch.profiler.schedule(wait=0, warmup=1, active=1),
        on_trace_ready=ready.append,
        record_module_names=False,
    )
    quiet(profiler=profiler).fit(Small(), loader(20))
    (window,) = ready
    names = [event.name for event in window.events()]
    assert sum(name.endswith("training_step") for name in names) == 1
    assert not any(name.startswith("[pl][module]") for name in names)
    assert list(tmp_path.iterdir()) == []


def test_pytorch_window_that_never_records_leaves_nothing(tmp_path: Path) -> None:
    profiler = PyTorchProfiler(tmp_path, schedule=lambda step: ProfilerAction.WARMUP)
    quiet(profiler=profiler).fit(Small(), loader(8), loader(8))
    assert list(tmp_path.iterdir()) == []
    assert profiler.summary() == ""


@pytest.mark.parametrize("failing", ["prepare_trace", "start_trace", "stop_trace"])
def test_pytorch_that_fails_is_left_alone(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []

    class Failing:
        """In torch's place, where a trace that was begun and not ended stays behind."""

        def __init__(self, **arguments: Any) -> None:
            pass

        def __getattr__(self, name: str) -> Any:
            def call() -> None:
                called.append(name)
                if name == failing:
                    raise RuntimeError("no such device")

            return call

    profiler = PyTorchProfiler(tmp_path, schedule=lambda step: ProfilerAction.WARMUP)
    monkeypatch.setattr(torch.profiler, "profile", Failing)
    with pytest.raises(RuntimeError, match="no such device"):
        quiet(profiler=profiler).fit(Small(), loader(8), loader(8))
    assert called.index(failing) == len(called) - 1


def test_pytorch_without_a_folder_warns_and_reports() -> None:
    profiler = PyTorchProfiler(schedule=lambda step: ProfilerAction.RECORD)
    with profiler.profile("training_step"):
        torch.zeros(2).add(1)
    with pytest.warns(UserWarning, match="there is no folder"):
        assert "aten::add" in profiler.summary()
    profiler.teardown(None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sort_by_key": "cpu_tim"}, "Did you mean 'cpu_time'"),
        ({"record_shape": True}, "Did you mean 'record_shapes'"),
        ({"table_kwargs": {"row_limit": 3}}, "got 'row_limit'"),
        ({"schedule": 3}, "got 3; a function"),
        ({"schedule": lambda step: "now"}, "ProfilerAction"),
    ],
)
def test_pytorch_refuses_other_arguments(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(MisconfigurationException, match=message):
        PyTorchProfiler(**arguments)
