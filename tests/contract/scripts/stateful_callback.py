"""A callback with state of its own that survives a checkpoint, beside a second one."""

import json

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader


class Counter(L.Callback):
    """Counts batches of one stage."""

    def __init__(self, stage="train"):
        self.stage = stage
        self.state = {"epochs": 0, "batches": 0}
        self.events = []

    @property
    def state_key(self):
        return f"Counter[stage={self.stage}]"

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if self.stage == "train":
            self.state["batches"] += 1
            self.events.append(round(outputs["loss"].item(), 6))

    def on_validation_batch_end(
        self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0
    ):
        if self.stage == "val" and not trainer.sanity_checking:
            self.state["batches"] += 1

    def on_train_epoch_end(self, trainer, pl_module):
        self.state["epochs"] += 1
        pl_module.log(f"{self.stage}_counted", float(self.state["batches"]))

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        checkpoint[f"note_{self.stage}"] = trainer.current_epoch

    def on_load_checkpoint(self, trainer, pl_module, checkpoint):
        self.events.append(["note", checkpoint[f"note_{self.stage}"]])

    def load_state_dict(self, state_dict):
        self.state.update(state_dict)

    def state_dict(self):
        return self.state.copy()


class Model(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).pow(2).mean()

    def validation_step(self, batch, batch_idx):
        return self.layer(batch).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


if __name__ == "__main__":
    L.seed_everything(6)
    data = torch.randn(24, 3)
    runs = []
    for max_epochs, ckpt_path in ((2, None), (3, "two.ckpt")):
        counters = [Counter(), Counter("val")]
        trainer = L.Trainer(
            max_epochs=max_epochs,
            accelerator="cpu",
            logger=False,
            callbacks=list(counters),
            enable_checkpointing=False,
            enable_progress_bar=False,
        )
        model = Model()
        trainer.fit(
            model, DataLoader(data, 6), DataLoader(data, 8), ckpt_path=ckpt_path
        )
        trainer.save_checkpoint("two.ckpt")
        content = torch.load("two.ckpt")
        runs.append(
            {
                "metrics": {k: v.item() for k, v in trainer.callback_metrics.items()},
                "states": [counter.state for counter in counters],
                "events": [counter.events for counter in counters],
                "stored": content["callbacks"],
                "notes": [content["note_train"], content["note_val"]],
                "weights": model.layer.weight.double().sum().item(),
                "state": [trainer.global_step, trainer.current_epoch],
            }
        )
    print(json.dumps(runs))
