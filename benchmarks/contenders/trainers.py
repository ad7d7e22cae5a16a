"""The same work as a LightningModule: for our runtime, and for Lightning itself."""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from contenders.workloads import (
    GAN,
    REPORT_EVERY,
    Batch,
    Batches,
    Ran,
    Variant,
    Workload,
    flat,
    seeded_net,
    sgd,
)


class DarkTerminal(io.StringIO):
    """A terminal that nobody looks at: bars are drawn as on any other."""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        return len(text)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Let everything that is printed go to a terminal that nobody looks at."""
    terminal = DarkTerminal()
    with contextlib.redirect_stdout(terminal), contextlib.redirect_stderr(terminal):
        yield


def run(
    namespace: Any,
    workload: Workload,
    variant: Variant,
    batches: Batches,
    **flags: Any,
) -> Ran:
    """Time one epoch of `Trainer.fit`, from its first hook to its last.

    Args:
        namespace: `lightgen_runtime` or `lightning`.
        workload: What to train.
        variant: What to do beside it.
        batches: The epoch.
        flags: More of the Trainer's.
    """
    module = (gan if workload is GAN else classifier)(namespace, workload, variant)
    clock = clock_of(namespace)
    rows = row_keeper(namespace)
    with tempfile.TemporaryDirectory() as folder, quiet():
        trainer = namespace.Trainer(
            accelerator="cpu",
            max_epochs=1,
            callbacks=[clock],
            logger=True if variant.callbacks else rows if variant.logged else False,
            enable_checkpointing=variant.callbacks,
            enable_progress_bar=variant.callbacks,
            enable_model_summary=False,
            log_every_n_steps=REPORT_EVERY,
            accumulate_grad_batches=variant.accumulate,
            gradient_clip_val=variant.clip,
            default_root_dir=folder,
            **flags,
        )
        trainer.fit(module, batches)
    return Ran(clock.ended - clock.started, flat(module), rows.kept)


def classifier(namespace: Any, workload: Workload, variant: Variant) -> Any:
    names = variant.names()
    # What a call says beside name and value, as its user would write it.
    how: dict[str, bool] = {}
    if variant.epoch_means:
        how = {"on_step": False, "on_epoch": True}
    elif variant.callbacks:
        how = {"prog_bar": True}

    class Module(namespace.LightningModule):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = seeded_net(workload)

        def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
            x, y = batch
            loss = F.cross_entropy(self.net(x), y)
            for name in names:
                self.log(name, loss, **how)
            return loss

        def configure_optimizers(self) -> Any:
            return sgd(self)

    return Module()


def gan(namespace: Any, workload: Workload, variant: Variant) -> Any:
    class Module(namespace.LightningModule):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False
            self.net = seeded_net(workload)

        def training_step(self, batch: Batch, batch_idx: int) -> None:
            real, noise = batch
            generator, critic = self.net.generator, self.net.critic
            for_generator, for_critic = self.optimizers()
            fake = generator(noise)
            critic_loss = critic(fake.detach()).mean() - critic(real).mean()
            for_critic.zero_grad()
            self.manual_backward(critic_loss)
            for_critic.step()

            generator_loss = -critic(fake).mean()
            for_generator.zero_grad()
            self.manual_backward(generator_loss)
            for_generator.step()

        def configure_optimizers(self) -> Any:
            return [sgd(self.net.generator), sgd(self.net.critic)]

    return Module()


def clock_of(namespace: Any) -> Any:
    class Clock(namespace.Callback):  # type: ignore[name-defined,misc]
        started = ended = 0.0

        def on_train_start(self, *_: Any) -> None:
            self.started = time.perf_counter()

        def on_train_end(self, *_: Any) -> None:
            self.ended = time.perf_counter()

    return Clock()


def row_keeper(namespace: Any) -> Any:
    """Make a logger that keeps what it is given."""

    class RowKeeper(namespace.pytorch.loggers.Logger):  # type: ignore[name-defined,misc]
        name = "rows"
        version = 0

        def __init__(self) -> None:
            super().__init__()
            self.kept: list[dict[str, float]] = []

        def log_metrics(
            self, metrics: Mapping[str, float], step: int | None = None
        ) -> None:
            self.kept.append({key: metrics[key] for key in metrics if key != "epoch"})

        def log_hyperparams(self, *_: Any, **__: Any) -> None:
            pass

    return RowKeeper()
