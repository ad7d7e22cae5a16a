"""From a checkpoint to predictions without a Trainer: eval, freeze, plain state dicts."""

import json

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader


class Predictor(L.LightningModule):
    def __init__(self, hidden=5):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(
            nn.Linear(3, hidden), nn.BatchNorm1d(hidden), nn.Dropout(0.5)
        )
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, x):
        return self.net(x) * self.scale

    def training_step(self, batch, batch_idx):
        return self(batch).pow(2).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


if __name__ == "__main__":
    L.seed_everything(66)
    data = torch.randn(30, 3)
    trainer = L.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_progress_bar=False
    )
    trainer.fit(Predictor(hidden=7), DataLoader(data, batch_size=10, shuffle=True))
    trainer.save_checkpoint("final.ckpt")
    trainer.save_checkpoint("weights.ckpt", weights_only=True)

    model = Predictor.load_from_checkpoint("final.ckpt", map_location="cpu")
    loaded_training = model.training
    model.freeze()
    output = model(data)
    frozen = [model.training, any(p.requires_grad for p in model.parameters())]
    model.unfreeze()
    thawed = [model.training, all(p.requires_grad for p in model.parameters())]

    plain = nn.Sequential(nn.Linear(3, 7), nn.BatchNorm1d(7), nn.Dropout(0.5)).eval()
    state = torch.load("weights.ckpt")["state_dict"]
    plain.load_state_dict(
        {k.removeprefix("net."): v for k, v in state.items() if k.startswith("net.")}
    )
    light = Predictor.load_from_checkpoint("weights.ckpt").eval()
    print(
        json.dumps(
            {
                "loaded_training": loaded_training,
                "frozen": frozen,
                "thawed": thawed,
                "output": output.double().sum().item(),
                "same": [
                    torch.equal(plain(data) * 2, output),
                    torch.equal(light(data), output),
                ],
                "requires_grad": output.requires_grad,
                "device": str(model.device),
                "dtype": str(model.dtype),
                "double": str(model.double().dtype),
                "keys": sorted(torch.load("final.ckpt").keys() - {"lightgen"}),
                "light_keys": sorted(torch.load("weights.ckpt").keys() - {"lightgen"}),
            }
        )
    )
