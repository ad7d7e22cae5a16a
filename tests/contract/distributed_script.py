"""What a user's program sees on two processes: `python distributed_script.py PACKAGE`.

Every process writes what it found to `RANK.json` in the current folder.
"""

from __future__ import annotations

import importlib
import json
import logging
import sys
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

PACKAGE = sys.argv[1]
L: Any = importlib.import_module(PACKAGE)


def numbered(count: int) -> TensorDataset:
    features = torch.randn(count, 4, generator=torch.Generator().manual_seed(1))
    return TensorDataset(features, torch.arange(count))


def quiet(**flags: Any) -> Any:
    return L.Trainer(
        accelerator="cpu",
        devices=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **{"max_epochs": 1, **flags},
    )


class Net(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)  # whatever ran before drew
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 1)
        self.seen: list[int] = []

    def forward(self, x: Any) -> Any:
        return self.second(torch.tanh(self.first(x)))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.seen += batch[1].tolist()
        loss = (self(batch[0]).squeeze(1) - batch[1] / 10).pow(2).mean()
        self.log("loss", loss, on_step=False, on_epoch=True, sync_dist=True)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


class Evaluating(Net):
    def test_step(self, batch: Any, batch_idx: int) -> None:
        numbers = batch[1].float()
        self.log("count", float(len(numbers)), reduce_fx="sum", sync_dist=True)
        self.log("mean", numbers.mean(), sync_dist=True)
        self.log("one", 1.0, sync_dist=True)
        self.log("local", float(self.global_rank))

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        return batch[1].tolist()


class Gan(Net):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        first, second = self.optimizers()
        for optimizer in (first, second):
            self.toggle_optimizer(optimizer)
            optimizer.zero_grad()
            self.manual_backward(self(batch[0]).pow(2).mean())
            optimizer.step()
            self.untoggle_optimizer(optimizer)

    def configure_optimizers(self) -> Any:
        parts = (self.first, self.second)
        return [torch.optim.SGD(part.parameters(), lr=0.05) for part in parts]


def weights(module: nn.Module) -> list[float]:
    return torch.cat([p.detach().flatten() for p in module.parameters()]).tolist()


def fit(module: Any, **flags: Any) -> dict[str, Any]:
    trainer = quiet(**flags)
    loader = DataLoader(numbered(16), 2, shuffle=True)
    trainer.fit(module, loader)
    return {
        "weights": weights(module),
        "seen": module.seen,
        "steps": trainer.global_step,
        "batches": trainer.num_training_batches,
        "metrics": {k: float(v) for k, v in trainer.callback_metrics.items()},
        "sampler": type(trainer.train_dataloader.sampler).__name__,
        "world": [trainer.world_size, trainer.global_rank, trainer.local_rank],
    }


def evaluate() -> dict[str, Any]:
    trainer, module = quiet(), Evaluating()
    [metrics] = trainer.test(module, DataLoader(numbered(5), 2), verbose=False)
    trainer, loader = quiet(), DataLoader(numbered(8), 2)
    return {"metrics": metrics, "predicted": trainer.predict(module, loader)}


class Saving(Net):
    """Saves behind the second of its epoch's four batches."""

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 1:
            self.trainer.save_checkpoint("inside.ckpt")
            self.at_save = list(self.seen)


def saved() -> list[int]:
    module = Saving()
    quiet().fit(module, DataLoader(numbered(16), 2, shuffle=True))
    return module.at_save


def told() -> int:
    """Return how often this process says why training stops."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("lightning.pytorch")
    if PACKAGE != "lightning":
        logger = logging.getLogger(PACKAGE)
    logger.addHandler(handler)
    callbacks = importlib.import_module(f"{PACKAGE}.pytorch.callbacks")
    stopper = callbacks.EarlyStopping(
        "loss", stopping_threshold=1e9, verbose=True, check_on_train_epoch_end=True
    )
    fit(Net(), callbacks=[stopper], max_epochs=9)
    logger.removeHandler(handler)
    return sum("loss" in text for text in said)


def error_of(module: Any) -> str | None:
    try:
        fit(module)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


class Uneven(IterableDataset[Any]):
    """Two batches in process 0, four in process 1."""

    def __iter__(self) -> Any:
        rank = torch.distributed.get_rank()
        return islice(iter(numbered(8)), 4 + 4 * rank)


class Telling(Net):
    """Tells what code of a user's own can read while a run goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.told: dict[str, Any] = {"step_values": []}

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        value = float(batch_idx + self.global_rank)
        self.log("value", value, sync_dist=True)
        self.told["is_model"] = self.trainer.model is self
        return super().training_step(batch, batch_idx)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.told["step_values"].append(float(self.trainer.callback_metrics["value"]))

    def on_train_epoch_end(self) -> None:
        self.told["last_value"] = float(self.trainer.callback_metrics["value"])
        kinds = [self.all_gather(value).dtype for value in (1, 1.5, True)]
        self.told["kinds"] = [str(kind) for kind in kinds]

    def on_validation_epoch_start(self) -> None:
        self.outputs: list[Any] = []

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.outputs.append(batch[1])

    def on_validation_epoch_end(self) -> None:
        try:
            self.told["gathered"] = self.all_gather(torch.cat(self.outputs)).tolist()
        except Exception as error:
            self.told["gathered"] = f"{type(error).__name__}: {error}"


def telling() -> dict[str, Any]:
    module = Telling()
    loaders = DataLoader(numbered(12), 2), DataLoader(numbered(5), 2)
    quiet().fit(module, *loaders)
    return {**module.told, "seen": module.seen}


def uneven() -> int | str:
    """Return how many samples were trained on, or the error after five seconds."""
    # There is no public way to shorten the wait of a group that is there.
    torch.distributed.distributed_c10d._set_pg_timeout(timedelta(seconds=5))
    module = Net()
    try:
        quiet().fit(module, DataLoader(Uneven(), 2))
    except RuntimeError as error:
        return str(error)
    return len(module.seen)


def main() -> None:
    torch.set_num_threads(1)
    L.seed_everything(7)
    found = {
        "fit": fit(Net(), max_epochs=2),
        "accumulated": fit(Net(), accumulate_grad_batches=2, gradient_clip_val=0.1),
        "gan": fit(Gan(), strategy="ddp_find_unused_parameters_true"),
        "evaluation": evaluate(),
        "saved": saved(),
        "telling": telling(),
        "told": told(),
        "gan_by_default": error_of(Gan()),
        "uneven": uneven(),  # last, as Lightning's processes are apart afterwards
    }
    rank = quiet().global_rank
    Path(f"{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
