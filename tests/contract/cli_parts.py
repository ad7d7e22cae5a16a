"""Modules, data and callbacks of both packages that a config can name by `class_path`."""

# Annotations are read, so they cannot be text: the names in them are local.
import importlib
from types import SimpleNamespace
from typing import Any

import torch
from recording import data

NAMESPACES = ("lightgen_runtime", "lightning")


class Encoder(torch.nn.Module):
    """Something for a module to be given, ready built."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, width)
        self.width = width

    def forward(self, x: Any) -> Any:
        """Encode."""
        return self.layer(x)


class WideEncoder(Encoder):
    """Another class of its kind."""

    def __init__(self, width: int = 7) -> None:
        super().__init__(width)


def _model(L: Any) -> Any:
    class Model(L.LightningModule):  # type: ignore[name-defined,misc]
        def __init__(self, hidden: int = 2, rate: float = 0.1) -> None:
            super().__init__()
            self.save_hyperparameters()
            torch.manual_seed(0)
            self.layer = torch.nn.Linear(4, hidden)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = self.layer(batch).pow(2).mean()
            self.log("loss", loss)
            return loss

        def train_dataloader(self) -> Any:
            return data()

        def test_step(self, batch: Any, batch_idx: int) -> None:
            self.log("test_loss", self.layer(batch).pow(2).mean())

        def test_dataloader(self) -> Any:
            return data()

    return Model


def _with_arguments(Model: Any) -> list[Any]:
    class Deep(Model):
        def __init__(self, hidden: int = 5, depth: int = 1) -> None:
            super().__init__(hidden)
            self.save_hyperparameters()

    class Encoding(Model):
        def __init__(self, encoder: Encoder, hidden: int = 2) -> None:
            super().__init__(hidden)
            self.save_hyperparameters()
            self.encoder = encoder

    return [Deep, Encoding]


def _with_optimizers(Model: Any, cli: Any) -> list[Any]:
    class Callables(Model):
        def __init__(
            self,
            optimizer: cli.OptimizerCallable = torch.optim.SGD,  # type: ignore[name-defined]
            scheduler: cli.LRSchedulerCallable = torch.optim.lr_scheduler.ConstantLR,  # type: ignore[name-defined]
        ) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.optimizer = optimizer
            self.scheduler = scheduler

        def configure_optimizers(self) -> Any:
            optimizer = self.optimizer(self.parameters())
            return [optimizer], [self.scheduler(optimizer)]

    class Inits(Model):
        def __init__(
            self, optimizer_init: dict[str, Any], scheduler_init: dict[str, Any]
        ) -> None:
            super().__init__()
            self.optimizer_init = optimizer_init
            self.scheduler_init = scheduler_init

        def configure_optimizers(self) -> Any:
            optimizer = cli.instantiate_class(self.parameters(), self.optimizer_init)
            return [optimizer], [cli.instantiate_class(optimizer, self.scheduler_init)]

    return [Callables, Inits]


def _beside_the_model(L: Any) -> list[Any]:
    class Data(L.LightningDataModule):  # type: ignore[name-defined,misc]
        def __init__(self, batch_size: int = 2) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.batch_size = batch_size
            self.num_classes = batch_size + 10

        def train_dataloader(self) -> Any:
            return data(batch_size=self.batch_size)

    class Patience(L.Callback):  # type: ignore[name-defined,misc]
        def __init__(self, patience: int = 3) -> None:
            self.patience = patience

    return [Data, Patience]


def _make(namespace: str) -> SimpleNamespace:
    L = importlib.import_module(namespace)
    cli = importlib.import_module(f"{namespace}.pytorch.cli")
    Model = _model(L)
    classes = [
        Model,
        *_with_arguments(Model),
        *_with_optimizers(Model, cli),
        *_beside_the_model(L),
    ]
    return SimpleNamespace(**{cls.__name__: cls for cls in classes})


def parts(namespace: str) -> SimpleNamespace:
    """Return the classes of one package."""
    found: SimpleNamespace = _PARTS[namespace]
    return found


_PARTS = {namespace: _make(namespace) for namespace in NAMESPACES}
for _namespace, _classes in _PARTS.items():
    for _name, _cls in vars(_classes).items():
        _cls.__name__ = _cls.__qualname__ = f"{_name}_{_namespace}"
        globals()[_cls.__name__] = _cls
