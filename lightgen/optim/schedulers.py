"""The schedulers of `torch.optim.lr_scheduler`, with torch's defaults and limits.

`warmup` and `decay` are `LinearLR`, and `hold` is `ConstantLR`, with other factors.

Source: torch 2.13.0: the constructors' signatures, and the ranges their checks enforce.
"""

from __future__ import annotations

from lightgen.optim.arguments import (
    Argument,
    choice,
    eps,
    factor,
    flag,
    integer,
    number,
)
from lightgen.optim.entries import Scheduler

GAMMA = number("gamma", 0.1, above=0)
ETA_MIN = number("eta_min", 0.0, least=0)
TOTAL_ITERS = Argument("total_iters", "duration", 5)
LR_LAMBDA = Argument("lr_lambda", "function")
CYCLE_MOMENTUM = flag("cycle_momentum", True)
LINEAR = (
    number("start_factor", 1 / 3, above=0, most=1),
    factor("end_factor", 1.0),
    TOTAL_ITERS,
)

ALL = (
    Scheduler(
        "constant",
        "ConstantLR",
        "a smaller rate for a while, then the whole",
        (
            factor("factor", 1 / 3),
            TOTAL_ITERS,
        ),
        interval="step",
        span="total_iters",
        since="1.10",
    ),
    Scheduler(
        "cosine",
        "CosineAnnealingLR",
        "down along half a cosine",
        (
            Argument("T_max", "duration"),
            ETA_MIN,
        ),
        interval="step",
        span="T_max",
    ),
    Scheduler(
        "cyclic",
        "CyclicLR",
        "up and down between two rates",
        (
            number("base_lr", least=0),
            number("max_lr", least=0),
            Argument("step_size_up", "duration", 2000),
            Argument("step_size_down", "duration", None, none=True),
            choice("mode", "triangular", "triangular", "triangular2", "exp_range"),
            number("gamma", 1.0, above=0),
            Argument("scale_fn", "function", None, none=True),
            choice("scale_mode", "cycle", "cycle", "iterations"),
            CYCLE_MOMENTUM,
            factor("base_momentum", 0.8),
            factor("max_momentum", 0.9),
        ),
        interval="step",
        since="1.1",
    ),
    Scheduler(
        "decay",
        "LinearLR",
        "down in a straight line to 0",
        (*LINEAR,),
        interval="step",
        span="total_iters",
        preset=(
            ("start_factor", 1.0),
            ("end_factor", 0.0),
        ),
        since="1.10",
    ),
    Scheduler(
        "exponential",
        "ExponentialLR",
        "times a factor in every step",
        (number("gamma", above=0),),
        aliases=("exp",),
    ),
    Scheduler(
        "hold",
        "ConstantLR",
        "the whole rate for a while",
        (
            factor("factor", 1 / 3),
            TOTAL_ITERS,
        ),
        interval="step",
        span="total_iters",
        preset=(("factor", 1.0),),
        since="1.10",
    ),
    Scheduler(
        "lambda",
        "LambdaLR",
        "times what a function of the step returns",
        (LR_LAMBDA,),
    ),
    Scheduler(
        "linear",
        "LinearLR",
        "from one factor to another in a straight line",
        (*LINEAR,),
        interval="step",
        span="total_iters",
        since="1.10",
    ),
    Scheduler(
        "multiplicative",
        "MultiplicativeLR",
        "times what a function returns, step after step",
        (LR_LAMBDA,),
        since="1.4",
    ),
    Scheduler(
        "multistep",
        "MultiStepLR",
        "down by a factor at given moments",
        (
            Argument("milestones", "durations"),
            GAMMA,
        ),
    ),
    Scheduler(
        "onecycle",
        "OneCycleLR",
        "one rise and one fall in the whole run",
        (
            number("max_lr", above=0),
            Argument("total_steps", "duration", None, none=True),
            integer("epochs", None, least=1),
            integer("steps_per_epoch", None, least=1),
            factor("pct_start", 0.3),
            choice("anneal_strategy", "cos", "cos", "linear"),
            CYCLE_MOMENTUM,
            factor("base_momentum", 0.85),
            factor("max_momentum", 0.95),
            number("div_factor", 25.0, above=0),
            number("final_div_factor", 10000.0, above=0),
            flag("three_phase"),
        ),
        interval="step",
        span="total_steps",
        since="1.3",
    ),
    Scheduler(
        "plateau",
        "ReduceLROnPlateau",
        "down by a factor when a metric stops improving",
        (
            choice("mode", "min", "min", "max"),
            number("factor", 0.1, least=0, below=1),
            integer("patience", 10, least=0),
            number("threshold", 0.0001, least=0),
            choice("threshold_mode", "rel", "rel", "abs"),
            integer("cooldown", 0, least=0),
            number("min_lr", 0, least=0),
            eps(),
        ),
        composes=False,
    ),
    Scheduler(
        "polynomial",
        "PolynomialLR",
        "down to 0 along a power",
        (
            TOTAL_ITERS,
            number("power", 1.0, above=0),
        ),
        interval="step",
        span="total_iters",
        aliases=("poly",),
        since="1.13",
    ),
    Scheduler(
        "restarts",
        "CosineAnnealingWarmRestarts",
        "cosines, one after the other",
        (
            Argument("T_0", "duration"),
            integer("T_mult", 1, least=1),
            ETA_MIN,
        ),
        interval="step",
    ),
    Scheduler(
        "step",
        "StepLR",
        "down by a factor every so often",
        (
            Argument("step_size", "duration"),
            GAMMA,
        ),
    ),
    Scheduler(
        "warmup",
        "LinearLR",
        "up in a straight line from a hundredth",
        (*LINEAR,),
        interval="step",
        span="total_iters",
        preset=(("start_factor", 0.01),),
        since="1.10",
    ),
)
