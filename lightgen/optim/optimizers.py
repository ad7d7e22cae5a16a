"""The optimizers of `torch.optim`, with torch's defaults and limits.

Source: torch 2.13.0: the constructors' signatures, and the ranges their checks enforce.
"""

from __future__ import annotations

from lightgen.optim.arguments import (
    Argument,
    choice,
    decay,
    eps,
    flag,
    integer,
    number,
    rate,
)
from lightgen.optim.entries import Optimizer

BETAS = Argument("betas", "numbers", (0.9, 0.999), least=0, below=1, count=2)
FOREACH = flag("foreach", None)
FUSED = flag("fused", None)
MAXIMIZE = flag("maximize")
CAPTURABLE = flag("capturable")
DIFFERENTIABLE = flag("differentiable")
DECOUPLED = flag("decoupled_weight_decay")
EITHER_WAY = (FOREACH, MAXIMIZE, CAPTURABLE, DIFFERENTIABLE)


ALL = (
    Optimizer(
        "adadelta",
        "Adadelta",
        "a rate for each weight from running averages",
        (
            rate(1.0),
            number("rho", 0.9, least=0, most=1),
            eps(1e-6),
            decay(),
            *EITHER_WAY,
        ),
    ),
    Optimizer(
        "adafactor",
        "Adafactor",
        "Adam with factored second moments: little memory",
        (
            rate(0.01),
            number("beta2_decay", -0.8, most=0),
            Argument("eps", "numbers", (None, 0.001), least=0, count=2, none=True),
            number("d", 1.0, least=1),
            decay(0.0),
            FOREACH,
            MAXIMIZE,
        ),
        since="2.5",
    ),
    Optimizer(
        "adagrad",
        "Adagrad",
        "rates that shrink with the squares seen so far",
        (
            rate(0.01),
            number("lr_decay", 0, least=0),
            decay(),
            number("initial_accumulator_value", 0, least=0),
            eps(1e-10),
            FOREACH,
            MAXIMIZE,
            DIFFERENTIABLE,
            FUSED,
        ),
    ),
    Optimizer(
        "adam",
        "Adam",
        "adaptive moments; weight decay as an L2 penalty",
        (
            rate(0.001),
            BETAS,
            eps(),
            decay(),
            flag("amsgrad"),
            *EITHER_WAY,
            FUSED,
            DECOUPLED,
        ),
    ),
    Optimizer(
        "adamax",
        "Adamax",
        "Adam by the infinity norm",
        (
            rate(0.002),
            BETAS,
            eps(),
            decay(),
            *EITHER_WAY,
        ),
    ),
    Optimizer(
        "adamw",
        "AdamW",
        "Adam with decoupled weight decay",
        (
            rate(0.001),
            BETAS,
            eps(),
            decay(0.01),
            flag("amsgrad"),
            *EITHER_WAY,
            FUSED,
        ),
        since="1.2",
    ),
    Optimizer(
        "asgd",
        "ASGD",
        "stochastic gradient descent with averaged weights",
        (
            rate(0.01),
            number("lambd", 0.0001),
            number("alpha", 0.75),
            number("t0", 1000000.0),
            decay(),
            *EITHER_WAY,
        ),
    ),
    Optimizer(
        "lbfgs",
        "LBFGS",
        "quasi-Newton; evaluates the loss several times a step",
        (
            rate(1),
            integer("max_iter", 20, least=1),
            integer("max_eval", None, least=1),
            number("tolerance_grad", 1e-7, least=0),
            number("tolerance_change", 1e-9, least=0),
            integer("history_size", 100, least=1),
            choice("line_search_fn", None, "strong_wolfe"),
        ),
        groups=False,
        closure=True,
    ),
    Optimizer(
        "muon",
        "Muon",
        "orthogonalised momentum, for matrices only",
        (
            rate(0.001),
            decay(0.1),
            number("momentum", 0.95, least=0),
            flag("nesterov", True),
            Argument("ns_coefficients", "numbers", (3.4445, -4.775, 2.0315), count=3),
            eps(1e-7),
            integer("ns_steps", 5, least=1),
            choice("adjust_lr_fn", None, "original", "match_rms_adamw"),
        ),
        since="2.9",
        dims=2,
    ),
    Optimizer(
        "nadam",
        "NAdam",
        "Adam with Nesterov momentum",
        (
            rate(0.002),
            BETAS,
            eps(),
            decay(),
            number("momentum_decay", 0.004, least=0),
            DECOUPLED,
            *EITHER_WAY,
        ),
        since="1.10",
    ),
    Optimizer(
        "radam",
        "RAdam",
        "Adam with a rectified variance at the start",
        (
            rate(0.001),
            BETAS,
            eps(),
            decay(),
            DECOUPLED,
            *EITHER_WAY,
        ),
        since="1.10",
    ),
    Optimizer(
        "rmsprop",
        "RMSprop",
        "rates from a running mean of squares",
        (
            rate(0.01),
            number("alpha", 0.99, least=0),
            eps(),
            decay(),
            number("momentum", 0, least=0),
            flag("centered"),
            *EITHER_WAY,
        ),
    ),
    Optimizer(
        "rprop",
        "Rprop",
        "steps from the signs of gradients; for full batches",
        (
            rate(0.01),
            Argument("etas", "numbers", (0.5, 1.2), above=0, count=2),
            Argument("step_sizes", "numbers", (1e-6, 50), above=0, count=2),
            *EITHER_WAY,
        ),
    ),
    Optimizer(
        "sgd",
        "SGD",
        "stochastic gradient descent, with momentum if asked for",
        (
            rate(0.001),
            number("momentum", 0, least=0),
            number("dampening", 0),
            decay(),
            flag("nesterov"),
            MAXIMIZE,
            FOREACH,
            DIFFERENTIABLE,
            FUSED,
        ),
    ),
    Optimizer(
        "sparseadam",
        "SparseAdam",
        "Adam for sparse gradients only",
        (
            number("lr", 0.001, above=0),
            BETAS,
            number("eps", 1e-8, above=0),
            MAXIMIZE,
        ),
    ),
)
