"""Hyperparameters from argparse, a dictionary, a dataclass and a call of `super`."""

import json
from argparse import ArgumentParser
from dataclasses import asdict, dataclass

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader


class Base(L.LightningModule):
    def build(self, width, lr):
        self.lr = lr
        self.net = nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 1))

    def training_step(self, batch, batch_idx):
        return self.net(batch).pow(2).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)


class FromNamespace(Base):
    def __init__(self, args):
        super().__init__()
        self.save_hyperparameters(args)
        self.build(self.hparams.width, self.hparams.lr)

    @staticmethod
    def add_model_specific_args(parent):
        group = parent.add_argument_group("model")
        group.add_argument("--width", type=int, default=4)
        group.add_argument("--lr", type=float, default=0.1)
        return parent


class FromDictionary(Base):
    def __init__(self, config):
        super().__init__()
        self.save_hyperparameters(config)
        self.build(self.hparams["width"], self.hparams["lr"])
        self.hparams.update({"added": True})


class FromNested(Base):
    def __init__(self, config, lr=0.2):
        super().__init__()
        self.save_hyperparameters()
        self.build(self.hparams.config["width"], self.hparams.lr)


@dataclass
class Config:
    width: int = 5
    lr: float = 0.3


class FromDataclass(Base):
    def __init__(self, config):
        super().__init__()
        self.save_hyperparameters(asdict(config))
        self.build(self.hparams.width, self.hparams.lr)


class Child(FromNested):
    def __init__(self, extra="x", **kwargs):
        super().__init__(**kwargs)
        self.save_hyperparameters("extra")


if __name__ == "__main__":
    L.seed_everything(65)
    parser = FromNamespace.add_model_specific_args(ArgumentParser())
    parser.add_argument("--max_epochs", type=int, default=1)
    args = parser.parse_args(["--width", "7"])
    data = DataLoader(torch.randn(8, 3), batch_size=4)
    result = {}
    for model in (
        FromNamespace(args),
        FromDictionary({"width": 3, "lr": 0.1, "nested": {"a": [1, 2]}}),
        FromNested({"width": 6}),
        FromDataclass(Config(width=9)),
        Child(config={"width": 2}, lr=0.4),
    ):
        trainer = L.Trainer(
            max_epochs=args.max_epochs,
            accelerator="cpu",
            logger=L.pytorch.loggers.CSVLogger("logs", name=type(model).__name__),
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(model, data)
        path = trainer.checkpoint_callback.best_model_path
        content = torch.load(path, weights_only=False)
        entry = {
            "hparams": dict(model.hparams),
            "initial": dict(model.hparams_initial),
            "stored": dict(content["hyper_parameters"]),
            "name": content.get("hparams_name"),
            "weights": model.net[0].weight.double().sum().item(),
        }
        if not isinstance(model, FromDataclass):
            again = type(model).load_from_checkpoint(path, lr=0.5)
            entry["again"] = [dict(again.hparams), again.lr, again.net[0].out_features]
        result[type(model).__name__] = entry
    print(json.dumps(result))
