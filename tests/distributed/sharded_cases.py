"""Fits, evaluations and checkpoints of a model that lies in parts in the processes."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
import torchmetrics
from sharded_net import Block, Deep, data, fitted, is_spread, sharded_case, weights
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader, IterableDataset
from trial_net import numbered, quiet

import lightgen_runtime as L
from lightgen_runtime.callbacks import (
    BaseFinetuning,
    LearningRateMonitor,
    ModelCheckpoint,
)
from lightgen_runtime.io import TorchCheckpointIO
from lightgen_runtime.loggers import CSVLogger
from lightgen_runtime.strategies import FSDPStrategy
from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.grads import grad_norm

BF16: dict[str, Any] = {"precision": "bf16-mixed"}
CLIPPED: dict[str, Any] = {"gradient_clip_val": 0.05}


@sharded_case
def automatic(world: int) -> Any:
    # Rank 0 must win, whatever the others begin with.
    module = Deep(seed=quiet(world).global_rank)
    # Sharded by an evaluation, which leaves nothing behind that hinders training.
    trainer = quiet(world, strategy="fsdp" if world > 1 else "auto")
    trainer.validate(module, data(world), verbose=False)
    return fitted(world, module)


def fitted_compiled(world: int, module: L.LightningModule, **flags: Any) -> Any:
    torch._dynamo.reset()
    counters.clear()
    backend = {"backend": "aot_eager"} if world > 1 else None
    found = fitted(world, module, compile=backend, **flags)
    breaks = sum(counters["graph_break"].values())
    return {**found, "graphs": counters["stats"]["unique_graphs"], "breaks": breaks}


@sharded_case
def compiled(world: int) -> Any:
    """Block by block, each with what puts its weights together around it."""
    return fitted_compiled(world, Deep(), **CLIPPED)


class OfTorch(Deep):
    """Its blocks are layers of torch's own."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(7, 7)) for _ in range(3))


@sharded_case
def compiled_of_torch(world: int) -> Any:
    return fitted_compiled(world, OfTorch())


@sharded_case
def by_classes(world: int) -> Any:
    strategy = FSDPStrategy(auto_wrap_policy={nn.Linear}, reshard_after_forward=False)
    return fitted(world, Deep(), strategy)


@sharded_case
def replicated(world: int) -> Any:
    """Each process a replica of its own."""
    return fitted(world, Deep(), FSDPStrategy(device_mesh=(2, 1)))


@sharded_case
def offloaded(world: int) -> Any:
    return fitted(world, Deep(), "fsdp_cpu_offload", **CLIPPED)


@sharded_case
def accumulating(world: int) -> Any:
    reduced: list[bool] = []

    class Watched(Deep):
        def on_after_backward(self) -> None:
            reduced.append(all(p.grad is not None for p in self.parameters()))

    module = Watched()
    strategy = "fsdp" if world > 1 else "auto"
    flags: dict[str, Any] = {"accumulate_grad_batches": 2, "max_epochs": 2, **CLIPPED}
    trainer = quiet(world, strategy=strategy, **flags)
    trainer.fit(module, data(world, 60))  # 5 batches: a short last window
    return {
        "weights": weights(module),
        "steps": trainer.global_step,
        "reduced": reduced,
    }


@sharded_case
def clipped_by_value(world: int) -> Any:
    clipped = {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"}
    return fitted(world, Deep(), **clipped)


class ByUser(Deep):
    """Sharded by `configure_model`, but for what lies around the blocks."""

    def configure_model(self) -> None:
        if self.device_mesh is not None:
            for block in self.blocks:
                fully_shard(block, mesh=self.device_mesh)


@sharded_case
def by_user(world: int) -> Any:
    return fitted(world, ByUser(), **CLIPPED)


@sharded_case
def compiled_by_user(world: int) -> Any:
    """Compiled when they are sharded already."""
    return fitted_compiled(world, ByUser())


class WhollyByUser(L.LightningModule):
    """Made in `configure_model`, without content; steps do not call it itself."""

    def configure_model(self) -> None:
        mesh = self.device_mesh
        with torch.device("cpu" if mesh is None else "meta"):
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(4, 7), Block(7), nn.Linear(7, 1))
        if mesh is not None:
            fully_shard(self.net[1], mesh=mesh)
            fully_shard(self.net, mesh=mesh)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = (self.net(batch[0]).squeeze(1) - batch[1] / 10).pow(2).mean()
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.01)


@sharded_case
def made_without_content(world: int) -> Any:
    """One process writes what several begin with."""
    path = Path("begun.ckpt")
    if world == 1:
        trainer = quiet(1, max_epochs=1)
        trainer.fit(WhollyByUser(), data(1))
        trainer.save_checkpoint(path)
    module = WhollyByUser()
    trainer = quiet(world, strategy="fsdp" if world > 1 else "auto", max_epochs=2)
    trainer.fit(module, data(world), ckpt_path=path)
    return {"weights": weights(module), "spread": is_spread(module)}


@sharded_case
def mixed(world: int) -> Any:
    kinds = set()

    class Watched(Deep):
        def on_before_backward(self, loss: Tensor) -> None:
            kinds.add(str(self.blocks[0].layer.weight.dtype))

    strategy = FSDPStrategy(reshard_after_forward=False)
    found = fitted(world, Watched(), strategy, **BF16)
    true = fitted(world, Deep(), precision="bf16-true")
    normed = Watched()
    normed.blocks = nn.ModuleList(
        nn.Sequential(OrderedDict(layer=nn.Linear(7, 7), norm=nn.BatchNorm1d(7)))
        for _ in range(2)
    )
    of_blocks = sorted(kinds)
    kinds.clear()
    fitted(world, normed, FSDPStrategy(reshard_after_forward=False), **BF16)
    return {
        **found,
        "kinds": of_blocks,
        "normed": sorted(kinds),
        "true": true["weights"],
    }


class Gan(L.LightningModule):
    """Two optimizers by hand, each loss going through both parts."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.automatic_optimization = False
        self.parts = nn.ModuleList(
            nn.Sequential(nn.Linear(n, 7), nn.Tanh(), nn.Linear(7, m))
            for n, m in ((4, 3), (3, 1))
        )

    def training_step(self, batch: Any, batch_idx: int) -> None:
        maker, judge = self.parts
        for number, sign in ((0, 1.0), (1, -0.1)):
            optimizer = self.optimizers()[number]
            self.toggle_optimizer(optimizer)
            optimizer.zero_grad()
            loss = sign * judge(maker(batch[0])).pow(2).mean()
            self.manual_backward(loss)
            self.clip_gradients(optimizer, 0.1, "norm")
            optimizer.step()
            self.untoggle_optimizer(optimizer)
        self.log("loss", loss, on_epoch=True)

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(part.parameters(), lr=0.05) for part in self.parts]


@sharded_case
def by_hand(world: int) -> Any:
    return fitted(world, Gan())


class BlocksByHand(Deep):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.blocks = nn.Sequential(*self.blocks)  # type: ignore[assignment]
        del self.shift

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.blocks(self.before(x))).squeeze(1)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        optimizer: Any = self.optimizers()
        loss = super().training_step(batch, batch_idx)
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()


@sharded_case
def compiled_by_hand(world: int) -> Any:
    return fitted_compiled(world, BlocksByHand())


class Named(Deep):
    """Two optimizers by name; both losses reach what either of them trains."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        output = self(batch[0])
        self.log("loss", output.mean(), on_epoch=True, sync_dist=True)
        near = (output - batch[1] / 10).pow(2).mean()
        return {"blocks": near, "around": near + output.abs().mean()}

    def configure_optimizers(self) -> Any:
        around = [*self.before.parameters(), *self.after.parameters(), self.shift]
        return {
            "blocks": torch.optim.AdamW(self.blocks.parameters(), lr=0.01),
            "around": torch.optim.AdamW(around, lr=0.02),
        }


@sharded_case
def named(world: int) -> Any:
    return fitted(world, Named(), **CLIPPED)


@sharded_case
def accumulating_named(world: int) -> Any:
    return fitted(world, Named(), accumulate_grad_batches=2, **CLIPPED)


class AccumulatingByHand(Gan):
    """Exchanges gradients in every second batch only."""

    def training_step(self, batch: Any, batch_idx: int) -> None:
        closes = batch_idx % 2 == 1
        with self.optimizers().toggle_model(sync_grad=closes):
            loss = self.parts[1](self.parts[0](batch[0])).pow(2).mean()
            self.manual_backward(loss)
        self.log("loss", loss, on_epoch=True)
        if closes:
            self.optimizers().step()
            self.optimizers().zero_grad()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


@sharded_case
def accumulating_by_hand(world: int) -> Any:
    return fitted(world, AccumulatingByHand())


@sharded_case
def among_callbacks(world: int) -> Any:
    """What reads parameters and gradients, and files that a fit writes by itself."""
    norms: list[float] = []

    class Watched(Deep):
        def on_before_optimizer_step(self, optimizer: Any) -> None:
            norms.append(grad_norm(self, 2)["grad_2.0_norm_total"])

        def configure_optimizers(self) -> Any:
            optimizer = super().configure_optimizers()
            return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)]

    keeper = ModelCheckpoint(f"kept_by_{world}", monitor="loss", save_top_k=2)
    logger = CSVLogger(f"logs_{world}")
    module = Watched()
    trainer = quiet(
        world,
        strategy="fsdp" if world > 1 else "auto",
        max_epochs=3,
        callbacks=[keeper, LearningRateMonitor()],
        enable_checkpointing=True,
        enable_model_summary=True,
        logger=logger,
        log_every_n_steps=1,
    )
    trainer.fit(module, data(world))
    kept = sorted(path.name for path in Path(f"kept_by_{world}").glob("*.ckpt"))
    trainer.test(module, DataLoader(numbered(4), 2), ckpt_path="best", verbose=False)
    return {"weights": weights(module), "norms": norms, "kept": kept}


class Unfreeze(BaseFinetuning):
    def freeze_before_training(self, pl_module: Any) -> None:
        self.freeze(pl_module.blocks)

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: Any) -> None:
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.blocks, optimizer, lr=0.05)


class Tuned(Deep):
    def configure_optimizers(self) -> Any:
        trained = filter(lambda p: p.requires_grad, self.parameters())
        return torch.optim.SGD(trained, lr=0.05)


@sharded_case
def unfreezing(world: int) -> Any:
    return fitted(world, Tuned(), callbacks=[Unfreeze()])


class Streamed(IterableDataset[Any]):
    """As many samples as given, in this process."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Any:
        return (numbered(self.count)[i] for i in range(self.count))


class Counted(Deep):
    """Counts by an object of torchmetrics, and reduces in every way."""

    def __init__(self) -> None:
        super().__init__()
        self.total = torchmetrics.SumMetric()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        numbers = batch[1].double()
        self.total(numbers)
        self.log("total", self.total)
        self.log("sum", numbers.sum(), reduce_fx="sum")
        self.log("most", numbers.max(), reduce_fx="max")
        self.log("least", numbers.min(), reduce_fx="min", sync_dist=True)
        self.log("weighed", numbers.mean(), batch_size=2 * len(numbers))


@sharded_case
def evaluations(world: int) -> Any:
    """Numbers of batches that processes cannot share evenly."""
    module = Counted()
    strategy = "fsdp" if world > 1 else "auto"
    trainer = quiet(world, strategy=strategy)
    trainer.fit(module, data(world), DataLoader(numbered(10), 2))
    found: dict[str, Any] = {"in_fit": read(trainer)}
    for count in (10, 1):
        module.total.reset()  # runs leave what an object has gathered
        trainer.validate(module, DataLoader(numbered(count), 2), verbose=False)
        found[f"of_{count}"] = read(trainer)
        names = ("total", "sum", "most", "least", "weighed")
        found[f"counted_{count}"] = [float(trainer.callback_metrics[n]) for n in names]
    trainer.predict(module, DataLoader(numbered(10), 2))
    batches = trainer.predict_loop.of_all_processes(trainer.strategy)
    found["order"] = torch.cat([numbers for numbers, _ in batches]).tolist()
    found["predicted"] = torch.cat([values for _, values in batches]).tolist()
    own = 6 if trainer.global_rank == 0 else 2
    trainer.validate(module, DataLoader(Streamed(own), 2), verbose=False)
    found["streamed"] = read(trainer)["seen"]
    return found


def read(trainer: L.Trainer) -> dict[str, float]:
    return {k: float(trainer.callback_metrics[k]) for k in ("val", "seen")}


@sharded_case
def checkpoints(world: int) -> Any:
    """Each number of processes goes on from what it has written itself."""
    strategy = "fsdp" if world > 1 else "auto"
    whole_run = fitted(world, Deep(), max_epochs=4)
    path = Path(f"by_{world}.ckpt")
    trainer = quiet(world, strategy=strategy, max_epochs=2)
    trainer.fit(Deep(), data(world))
    trainer.save_checkpoint(path)
    trainer.save_checkpoint(f"weights_by_{world}.ckpt", weights_only=True)
    found = {"uninterrupted": whole_run["weights"]}
    for source in sorted({path, Path("by_1.ckpt")}):
        module = Deep(seed=1)
        trainer = quiet(world, strategy=strategy, max_epochs=4)
        trainer.fit(module, data(world), ckpt_path=source)
        found[source.name] = weights(module)
    return found


class PartsIO(TorchCheckpointIO):
    """Writes a file from each process."""

    writes_from_all_processes = True

    def save_checkpoint(
        self, checkpoint: Any, path: Any, storage_options: Any = None
    ) -> None:
        parts = [v for v in checkpoint["state_dict"].values() if hasattr(v, "to_local")]
        rank = torch.distributed.get_rank()
        content = {"parts": len(parts), "elements": [p._local_tensor for p in parts]}
        super().save_checkpoint(content, f"{path}.{rank}")


@sharded_case
def in_parts(world: int) -> Any:
    if world == 1:
        return None
    strategy = FSDPStrategy(state_dict_type="sharded", checkpoint_io=PartsIO())
    trainer = quiet(world, strategy=strategy)
    trainer.fit(Deep(), data(world))
    trainer.save_checkpoint("parts.ckpt")
    own = torch.load(f"parts.ckpt.{trainer.global_rank}")
    return {"parts": own["parts"], "size": sum(e.numel() for e in own["elements"])}


@sharded_case
def folder_of_parts(world: int) -> Any:
    """Two epochs of four by a folder that every process has written."""
    if world == 1:
        return None

    def fit(epochs: int, path: str | None) -> Deep:
        module = Deep()
        strategy = FSDPStrategy(state_dict_type="sharded")
        trainer = quiet(world, strategy=strategy, max_epochs=epochs)
        trainer.fit(module, data(world), ckpt_path=path)
        trainer.save_checkpoint("folder.ckpt")
        return module

    fit(2, None)
    return weights(fit(4, "folder.ckpt"))


@sharded_case
def one_device(world: int) -> Any:
    if world > 1:
        return None
    trainer = quiet(1, strategy="fsdp", max_epochs=3)
    module = Deep()
    trainer.fit(module, data(1))
    return {"weights": weights(module), "spread": is_spread(module)}


class Early(Deep):
    """Makes its optimizer before anything is sharded."""

    def __init__(self) -> None:
        super().__init__()
        self.early = torch.optim.SGD(self.parameters(), lr=0.1)

    def configure_optimizers(self) -> Any:
        return self.early


class Flat(Deep):
    def configure_optimizers(self) -> Any:
        return torch.optim.LBFGS(self.parameters())


class OwnByHand(Deep):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False


class Empty(Deep):
    def __init__(self) -> None:
        with torch.device("meta"):
            super().__init__()


class NoReset(WhollyByUser):
    def configure_model(self) -> None:
        with torch.device("meta"):
            self.net = nn.Sequential(nn.Linear(4, 1))
            self.net.scale = nn.Parameter(torch.ones(2))
        fully_shard(self.net, mesh=self.device_mesh)


class Silent(Deep):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        super().training_step(batch, batch_idx)


class Inside(Deep):
    """Uses a layer of a block without the block."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.blocks[0].layer(self.before(batch[0])).mean()


@sharded_case
def wrong_uses(world: int) -> Any:
    if world == 1:
        return None
    found = {}
    modules = (Early, Flat, OwnByHand, Empty, NoReset, Silent, Inside)
    for make in modules:
        try:
            quiet(world, strategy="fsdp").fit(make(), data(world))
        except (MisconfigurationException, RuntimeError) as error:
            notes = getattr(error, "__notes__", [])
            found[make.__name__] = "\n".join([str(error), *notes])
    return found


@sharded_case
def open_window(world: int) -> Any:
    """A checkpoint inside an accumulation window says that it is not exact."""
    if world == 1:
        return None
    said: list[str] = []

    class Saving(Deep):
        def on_train_batch_end(self, *args: Any) -> None:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                self.trainer.save_checkpoint("open.ckpt")
            said.extend(str(w.message) for w in caught if "window" in str(w.message))

    trainer = quiet(world, strategy="fsdp", accumulate_grad_batches=2)
    trainer.fit(Saving(), data(world))
    return said
