"""What can listen to a run. Nothing is imported before it is used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightgen_runtime.callbacks.batch_size_finder import BatchSizeFinder
    from lightgen_runtime.callbacks.callback import Callback
    from lightgen_runtime.callbacks.checkpoint import Checkpoint
    from lightgen_runtime.callbacks.device_stats_monitor import DeviceStatsMonitor
    from lightgen_runtime.callbacks.early_stopping import EarlyStopping
    from lightgen_runtime.callbacks.finetuning import BackboneFinetuning, BaseFinetuning
    from lightgen_runtime.callbacks.finite_loss import FiniteLoss
    from lightgen_runtime.callbacks.gradient_accumulation_scheduler import (
        GradientAccumulationScheduler,
    )
    from lightgen_runtime.callbacks.lambda_function import LambdaCallback
    from lightgen_runtime.callbacks.lr_finder import LearningRateFinder
    from lightgen_runtime.callbacks.lr_monitor import LearningRateMonitor
    from lightgen_runtime.callbacks.model_checkpoint import ModelCheckpoint
    from lightgen_runtime.callbacks.model_summary import ModelSummary
    from lightgen_runtime.callbacks.on_exception_checkpoint import OnExceptionCheckpoint
    from lightgen_runtime.callbacks.prediction_writer import BasePredictionWriter
    from lightgen_runtime.callbacks.preemption import Preemption
    from lightgen_runtime.callbacks.progress import (
        PlainProgressBar,
        ProgressBar,
        RichProgressBar,
        TQDMProgressBar,
    )
    from lightgen_runtime.callbacks.pruning import ModelPruning
    from lightgen_runtime.callbacks.rich_model_summary import RichModelSummary
    from lightgen_runtime.callbacks.spike import SpikeDetection
    from lightgen_runtime.callbacks.stochastic_weight_avg import (
        StochasticWeightAveraging,
    )
    from lightgen_runtime.callbacks.throughput_monitor import ThroughputMonitor
    from lightgen_runtime.callbacks.timer import Timer
    from lightgen_runtime.callbacks.weight_averaging import (
        EMAWeightAveraging,
        WeightAveraging,
    )

__all__ = [
    "BackboneFinetuning",
    "BaseFinetuning",
    "BasePredictionWriter",
    "BatchSizeFinder",
    "Callback",
    "Checkpoint",
    "DeviceStatsMonitor",
    "EMAWeightAveraging",
    "EarlyStopping",
    "FiniteLoss",
    "GradientAccumulationScheduler",
    "LambdaCallback",
    "LearningRateFinder",
    "LearningRateMonitor",
    "ModelCheckpoint",
    "ModelPruning",
    "ModelSummary",
    "OnExceptionCheckpoint",
    "PlainProgressBar",
    "Preemption",
    "ProgressBar",
    "RichModelSummary",
    "RichProgressBar",
    "SpikeDetection",
    "StochasticWeightAveraging",
    "TQDMProgressBar",
    "ThroughputMonitor",
    "Timer",
    "WeightAveraging",
]

_MODULES = {
    "BatchSizeFinder": "batch_size_finder",
    "BackboneFinetuning": "finetuning",
    "BaseFinetuning": "finetuning",
    "BasePredictionWriter": "prediction_writer",
    "Callback": "callback",
    "Checkpoint": "checkpoint",
    "DeviceStatsMonitor": "device_stats_monitor",
    "EMAWeightAveraging": "weight_averaging",
    "EarlyStopping": "early_stopping",
    "FiniteLoss": "finite_loss",
    "GradientAccumulationScheduler": "gradient_accumulation_scheduler",
    "LambdaCallback": "lambda_function",
    "LearningRateFinder": "lr_finder",
    "LearningRateMonitor": "lr_monitor",
    "ModelCheckpoint": "model_checkpoint",
    "ModelPruning": "pruning",
    "ModelSummary": "model_summary",
    "OnExceptionCheckpoint": "on_exception_checkpoint",
    "PlainProgressBar": "progress",
    "Preemption": "preemption",
    "ProgressBar": "progress",
    "RichModelSummary": "rich_model_summary",
    "RichProgressBar": "progress",
    "SpikeDetection": "spike",
    "StochasticWeightAveraging": "stochastic_weight_avg",
    "TQDMProgressBar": "progress",
    "ThroughputMonitor": "throughput_monitor",
    "Timer": "timer",
    "WeightAveraging": "weight_averaging",
}


def __getattr__(name: str) -> Any:
    """Import the module of a public name on its first use (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module `{__name__}` has no attribute `{name}`")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
