"""What all contenders train, and what they do beside it.

The batches lie ready in memory, so that only the loop differs; nothing is drawn at random
while a contender runs, so that all of them must end with the same weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

Batch = tuple[Tensor, Tensor]
LEARNING_RATE = 0.01
# Of the logged values: the default of Lightning's, and ours.
REPORT_EVERY = 50


class Workload(NamedTuple):
    """A net and its batches.

    Attributes:
        name: As the tables have it.
        net: Makes the net.
        batch: Makes a batch.
        steps: Length of a timed run, some tenths of a second.
    """

    name: str
    net: Callable[[], nn.Module]
    batch: Callable[[], Batch]
    steps: int


class Variant(NamedTuple):
    """What a loop does beside training.

    Attributes:
        name: As the tables have it.
        logged: Metrics logged in each step.
        epoch_means: Whether it is their mean over the epoch that is reported, and not
            the value of every 50th step.
        accumulate: Batches for an optimizer step.
        clip: Largest norm of the gradients.
        callbacks: Whether a progress bar, a checkpoint and a CSV file belong to the run.
            The loop by hand never has them.
    """

    name: str
    logged: int = 0
    epoch_means: bool = False
    accumulate: int = 1
    clip: float | None = None
    callbacks: bool = False

    def names(self) -> list[str]:
        """Name the metrics."""
        return [f"metric_{number}" for number in range(self.logged)]


class Ran(NamedTuple):
    """What a run took, and what shows that it did the work.

    Attributes:
        seconds: From before the first batch to after the last.
        weights: All parameters in the end.
        rows: What was reported of the logged metrics.
    """

    seconds: float
    weights: Tensor
    rows: list[dict[str, float]]


Contender = Callable[[Workload, Variant, "Batches"], Ran]


class Batches:
    """A sized iterable of batches that lie ready."""

    def __init__(self, make: Callable[[], Batch], number: int) -> None:
        torch.manual_seed(0)
        self.batches = [make() for _ in range(number)]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)


class Pair(nn.Module):
    """The two nets of a GAN."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 16))
        self.critic = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1))


class Classifier(nn.Module):
    """One encoder layer over 32 tokens, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(64, 64)
        self.layer = nn.TransformerEncoderLayer(
            64, 4, 128, dropout=0.0, batch_first=True
        )
        self.head = nn.Linear(64, 10)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.head(self.layer(self.embed(tokens)).mean(1))
        return logits


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 8 * 8, 10),
    )


TINY = Workload(
    "tiny MLP",
    mlp,
    lambda: (torch.randn(32, 16), torch.randint(0, 4, (32,))),
    steps=1000,
)
MEDIUM = Workload(
    "medium net",
    convolutions,
    lambda: (torch.randn(32, 1, 16, 16), torch.randint(0, 10, (32,))),
    steps=100,
)
TRANSFORMER = Workload(
    "tiny transformer",
    Classifier,
    lambda: (torch.randint(0, 64, (8, 32)), torch.randint(0, 10, (8,))),
    steps=100,
)
# A batch of real samples and one of noise.
GAN = Workload(
    "GAN", Pair, lambda: (torch.randn(32, 16), torch.randn(32, 8)), steps=500
)

BARE = Variant("bare")
ONE = Variant("1 metric", logged=1)
TEN = Variant("10 metrics", logged=10)
MEANS = Variant("10 epoch means", logged=10, epoch_means=True)
CALLBACKS = Variant("default callbacks", logged=1, callbacks=True)
ACCUMULATED = Variant("accumulate 4, clip 1.0", accumulate=4, clip=1.0)

ROWS = [
    (workload, variant)
    for workload in (TINY, MEDIUM, TRANSFORMER)
    for variant in (BARE, ONE, TEN, MEANS, CALLBACKS, ACCUMULATED)
] + [(GAN, Variant("two optimizers, by hand"))]


def seeded_net(workload: Workload) -> Any:
    """Make the net, the same each time."""
    torch.manual_seed(1)
    return workload.net()


def sgd(net: nn.Module) -> Any:
    """Make the optimizer that all loops use."""
    return torch.optim.SGD(net.parameters(), lr=LEARNING_RATE)


def flat(net: nn.Module) -> Tensor:
    """Copy all parameters into one vector."""
    return nn.utils.parameters_to_vector(net.parameters()).detach().clone()
