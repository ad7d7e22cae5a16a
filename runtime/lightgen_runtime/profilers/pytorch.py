"""Which operators a run's steps spend their time and memory in."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.autograd.profiler_util import EventList
from torch.profiler import ProfilerAction, ProfilerActivity, record_function
from torch.utils.hooks import RemovableHandle

from lightgen_runtime.profilers.profiler import Profiler
from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.nearest import did_you_mean
from lightgen_runtime.utilities.rank_zero import rank_zero_warn

# Source: Lightning's labels, which trace viewers and people search for.
ACTION_LABEL = "[pl][profile]"
MODULE_LABEL = "[pl][module]"

Schedule = Callable[[int], ProfilerAction]

DEFAULT_SCHEDULE: Schedule = torch.profiler.schedule(wait=1, warmup=1, active=3)
# Batches of which the default schedule records all: it needs more to get through.
FEW_BATCHES = 5

_OWN_ARGUMENTS = ("enabled", "export_to_flame_graph", "metric", "schedule")


class RegisterRecordFunction:
    """Label each submodule's forward pass in a profile, inside a `with`."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._handles: list[RemovableHandle] = []
        self._running: dict[str, list[record_function]] = {}

    def __enter__(self) -> None:
        for name, module in self._model.named_modules():
            if not name:
                continue
            kind = type(module)
            label = f"{MODULE_LABEL}{kind.__module__}.{kind.__name__}: {name}"
            self._handles += [
                module.register_forward_pre_hook(partial(self._begin, label)),
                module.register_forward_hook(
                    partial(self._end, label), always_call=True
                ),
            ]

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _begin(self, label: str, *_: Any) -> None:
        self._running.setdefault(label, []).append(_labelled(label))

    def _end(self, label: str, *_: Any) -> None:
        self._running[label].pop().__exit__(None, None, None)


class PyTorchProfiler(Profiler):
    """Record operators with `torch.profiler`, in a window of each kind of step.

    By default the second step of a kind warms up and the next three are recorded; with
    fewer than 5 batches all of them are. A window that is cut short by steps of another
    kind ends there.

    Args:
        dirpath: Folder of what is written; by default the run's `log_dir`.
        filename: The report's file name, without its ending; None shows it instead.
        group_by_input_shapes: Count calls by shape; needs `record_shapes=True`.
        emit_nvtx: Mark operators for NVIDIA's tools instead of recording them.
        export_to_chrome: Write each window as a trace for Chrome or TensorBoard.
        row_limit: Operators in the report; -1 for all.
        sort_by_key: One of `AVAILABLE_SORT_KEYS`; by default the total time on the
            device.
        record_module_names: Label the forward pass of each submodule.
        table_kwargs: Passed to `EventList.table`.
        profiler_kwargs: Passed to `torch.profiler.profile`; `schedule` counts steps of
            one kind, `export_to_flame_graph` writes stacks by `metric`.

    Raises:
        MisconfigurationException: An argument is not accepted.
    """

    STEP_FUNCTIONS = frozenset(
        {"training_step", "validation_step", "test_step", "predict_step"}
    )
    AVAILABLE_SORT_KEYS = frozenset(
        {
            *("cpu_time", "cuda_time", "cpu_time_total", "cuda_time_total"),
            *("cpu_memory_usage", "cuda_memory_usage", "count"),
            *("self_cpu_memory_usage", "self_cuda_memory_usage"),
        }
    )

    def __init__(
        self,
        dirpath: str | os.PathLike[str] | None = None,
        filename: str | None = None,
        group_by_input_shapes: bool = False,
        emit_nvtx: bool = False,
        export_to_chrome: bool = True,
        row_limit: int = 20,
        sort_by_key: str | None = None,
        record_module_names: bool = True,
        table_kwargs: dict[str, Any] | None = None,
        **profiler_kwargs: Any,
    ) -> None:
        super().__init__(dirpath, filename)
        on_device = torch.cuda.is_available()
        self._sort_by_key = (
            sort_by_key or f"{'cuda' if on_device else 'cpu'}_time_total"
        )
        self._table_kwargs = table_kwargs or {}
        self._check(profiler_kwargs)
        shapes = bool(profiler_kwargs.get("record_shapes", False))
        self._group_by_input_shapes = group_by_input_shapes and shapes
        self._emit_nvtx = emit_nvtx
        self._export_to_chrome = export_to_chrome
        self._row_limit = row_limit
        self._record_module_names = record_module_names
        self._enabled = profiler_kwargs.pop("enabled", True)
        self._flame_graph = profiler_kwargs.pop("export_to_flame_graph", False)
        self._metric = profiler_kwargs.pop("metric", "self_cpu_time_total")
        self._schedule: Schedule | None = profiler_kwargs.pop("schedule", None)
        self._on_trace_ready = profiler_kwargs.pop("on_trace_ready", None)
        self._kwargs: dict[str, Any] = {
            "activities": [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_device,
            **profiler_kwargs,
        }
        if self._flame_graph:
            self._kwargs["with_stack"] = True
        self.profiler: torch.profiler.profile | None = None
        self.function_events: EventList | None = None
        self._attached = ExitStack()
        self._started = False
        self._forget()

    def _forget(self) -> None:
        self._labels: dict[str, record_function] = {}
        self._steps: dict[str, int] = {}
        self._finished: set[str] = set()
        self._window_of: str | None = None
        self._action = ProfilerAction.NONE
        self._tables: dict[str, str] = {}

    def start(self, action_name: str) -> None:
        """Label an action in the profile; a step opens or closes its kind's window."""
        if not self._enabled:
            return
        if not self._started:
            self._started = True
            self._attach()
        kind = action_name.rpartition(".")[2]
        if kind in self.STEP_FUNCTIONS and not self._emit_nvtx:
            self._before_step(kind)
        if self._recording or self._emit_nvtx:
            self._labels[action_name] = _labelled(f"{ACTION_LABEL}{action_name}")

    def stop(self, action_name: str) -> None:
        """End an action's label."""
        label = self._labels.pop(action_name, None)
        if label is not None:
            label.__exit__(None, None, None)

    def summary(self) -> str:
        """Return a table of operators for each kind of step that was recorded."""
        self._close_window()
        return self.report(self._tables) if self._tables else ""

    def teardown(self, stage: str | None) -> None:
        """Detach from torch and from the module, and count steps anew."""
        self._close_window()
        for action in list(self._labels):
            self.stop(action)
        self._attached.close()
        self._started = False
        self._forget()

    @property
    def _recording(self) -> bool:
        return self._action in (ProfilerAction.RECORD, ProfilerAction.RECORD_AND_SAVE)

    def _attach(self) -> None:
        if self._emit_nvtx:
            self._attached.enter_context(torch.cuda.profiler.profile())
            self._attached.enter_context(torch.autograd.profiler.emit_nvtx())  # type: ignore[no-untyped-call]
        if self._record_module_names and self._module is not None:
            self._attached.enter_context(RegisterRecordFunction(self._module))

    def _before_step(self, kind: str) -> None:
        """Do what the schedule says of the step that is about to run."""
        if self._window_of not in (None, kind):
            self._close_window()
        if self._action == ProfilerAction.RECORD_AND_SAVE:
            self._close_window()
        if kind in self._finished:
            return
        number = self._steps.get(kind, 0)
        self._steps[kind] = number + 1
        action, recorded = self._schedule_of(kind)(number), self._recording
        if action == ProfilerAction.NONE:
            self._close_window()
            return
        if self.profiler is None:
            profiler = torch.profiler.profile(**self._kwargs)
            with warnings.catch_warnings():
                # Each window is reported by itself, which torch 2.11 warns of.
                warnings.filterwarnings("ignore", ".*Profiler clears events")
                profiler.prepare_trace()  # one that fails there must not be touched again
            self.profiler, self._window_of = profiler, kind
        self._action = action
        if self._recording and not recorded:
            self.profiler.start_trace()

    def _schedule_of(self, kind: str) -> Schedule:
        if self._schedule is not None:
            return self._schedule
        if self._batches_of(kind) < FEW_BATCHES:
            return lambda step: ProfilerAction.RECORD
        return DEFAULT_SCHEDULE

    def _batches_of(self, kind: str) -> int | float:
        """Return how many steps of a kind the run will take; infinity if unknown."""
        if self._module is None:
            return float("inf")
        trainer = self._module.trainer
        batches: Any = {
            "training_step": lambda: trainer.num_training_batches,
            "validation_step": lambda: sum(trainer.num_val_batches),
            "test_step": lambda: sum(trainer.num_test_batches),
            "predict_step": lambda: sum(trainer.num_predict_batches),
        }[kind]()
        return float(batches)

    def _close_window(self) -> None:
        """End the open window, if any, and keep what it recorded."""
        profiler, kind = self.profiler, self._window_of
        if profiler is None or kind is None:
            return
        recorded = self._recording
        # First: what fails here is not to be tried once more, which ends the process.
        self.profiler, self._window_of, self._action = None, None, ProfilerAction.NONE
        if not recorded:
            profiler.start_trace()  # or what `prepare_trace` began could not be ended
        profiler.stop_trace()
        if not recorded:
            return
        self._finished.add(kind)
        self.function_events = profiler.events()  # type: ignore[no-untyped-call]
        averages = profiler.key_averages(
            group_by_input_shape=self._group_by_input_shapes
        )
        self._tables[kind] = averages.table(
            sort_by=self._sort_by_key, row_limit=self._row_limit, **self._table_kwargs
        )
        if self._on_trace_ready is not None:
            self._on_trace_ready(profiler)
        else:
            self._export(profiler, kind)

    def _export(self, profiler: torch.profiler.profile, kind: str) -> None:
        if not self._export_to_chrome and not self._flame_graph:
            return
        if self.dirpath is None:
            rank_zero_warn(
                "`PyTorchProfiler` writes no trace: there is no folder for it. Pass "
                "`dirpath`, or export_to_chrome=False."
            )
            return
        if self._export_to_chrome:
            path = self.file_path(kind, "")
            handler = torch.profiler.tensorboard_trace_handler(
                str(path.parent), path.name
            )
            handler(profiler)
        if self._flame_graph:
            path = self.file_path(kind, ".stack")
            path.parent.mkdir(parents=True, exist_ok=True)
            profiler.export_stacks(str(path), self._metric)

    def _check(self, profiler_kwargs: dict[str, Any]) -> None:
        _check_name("sort_by_key", self._sort_by_key, self.AVAILABLE_SORT_KEYS)
        taken = inspect.signature(EventList.table).parameters
        for name in self._table_kwargs:
            _check_name(
                "table_kwargs", name, set(taken) - {"self", "sort_by", "row_limit"}
            )
        taken = inspect.signature(torch.profiler.profile.__init__).parameters
        for name in profiler_kwargs:
            _check_name("...", name, {*taken, *_OWN_ARGUMENTS} - {"self"})
        schedule = profiler_kwargs.get("schedule")
        if schedule is None:
            return
        answer = schedule(0) if callable(schedule) else schedule
        if not isinstance(answer, ProfilerAction):
            raise MisconfigurationException(
                f"`PyTorchProfiler(schedule=...)` got {schedule!r}; a function from a step's "
                "number to a `torch.profiler.ProfilerAction` is needed, such as what "
                "`torch.profiler.schedule` returns"
            )


def _labelled(text: str) -> record_function:
    label = record_function(text)
    label.__enter__()  # type: ignore[no-untyped-call]
    return label


def _check_name(argument: str, name: str, accepted: set[str] | frozenset[str]) -> None:
    if name in accepted:
        return
    raise MisconfigurationException(
        f"`PyTorchProfiler({argument})` got {name!r}; accepted are "
        f"{', '.join(sorted(accepted))}.{did_you_mean(name, accepted)}"
    )
