"""What a trainer is doing: which method, which stage of it, and how it stands."""

from __future__ import annotations

from dataclasses import dataclass

from lightgen_runtime.utilities.enums import LightningEnum


class TrainerStatus(LightningEnum):
    """How the last method of a trainer stands."""

    INITIALIZING = "initializing"
    RUNNING = "running"
    FINISHED = "finished"
    INTERRUPTED = "interrupted"

    @property
    def stopped(self) -> bool:
        """Whether it is over, well or badly."""
        return self in (TrainerStatus.FINISHED, TrainerStatus.INTERRUPTED)


class TrainerFn(LightningEnum):
    """The methods that run a module."""

    FITTING = "fit"
    VALIDATING = "validate"
    TESTING = "test"
    PREDICTING = "predict"


class RunningStage(LightningEnum):
    """What runs at the moment; a fit has several stages."""

    TRAINING = "train"
    SANITY_CHECKING = "sanity_check"
    VALIDATING = "validate"
    TESTING = "test"
    PREDICTING = "predict"

    @property
    def evaluating(self) -> bool:
        """Whether the module is being evaluated, in a fit or alone."""
        return self in (
            RunningStage.VALIDATING,
            RunningStage.TESTING,
            RunningStage.SANITY_CHECKING,
        )

    @property
    def dataloader_prefix(self) -> str:
        """What the names of the stage's loaders begin with, e.g. "val"."""
        validates = (RunningStage.VALIDATING, RunningStage.SANITY_CHECKING)
        return "val" if self in validates else self.value


@dataclass
class TrainerState:
    """What a trainer is doing.

    Attributes:
        status: How its last method stands.
        fn: That method; None before the first.
        stage: What runs or is prepared; None between two methods.
    """

    status: TrainerStatus = TrainerStatus.INITIALIZING
    fn: TrainerFn | None = None
    stage: RunningStage | None = None

    @property
    def finished(self) -> bool:
        """Whether the last method ended well."""
        return self.status == TrainerStatus.FINISHED

    @property
    def stopped(self) -> bool:
        """Whether the last method is over, well or badly."""
        return self.status.stopped
