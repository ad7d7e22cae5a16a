"""REINFORCE on a corridor: episodes are played while training, updated by hand."""

import json

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset


class Episodes(IterableDataset):
    """Plays one episode for each item with the policy as it is now."""

    def __init__(self, policy, count):
        self.policy, self.count = policy, count

    def __iter__(self):
        for _ in range(self.count):
            states, actions, rewards, position = [], [], [], 0
            for _ in range(12):
                state = torch.nn.functional.one_hot(torch.tensor(position), 5).float()
                with torch.no_grad():
                    probabilities = self.policy(state).softmax(-1)
                action = torch.multinomial(probabilities, 1).item()
                position = max(0, min(4, position + (1 if action else -1)))
                states.append(state)
                actions.append(action)
                rewards.append(1.0 if position == 4 else -0.1)
                if position == 4:
                    break
            yield torch.stack(states), torch.tensor(actions), torch.tensor(rewards)


class Reinforce(L.LightningModule):
    def __init__(self, episodes_per_update=4, gamma=0.9):
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.policy = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 2))
        self.lengths = []

    def train_dataloader(self):
        return DataLoader(Episodes(self.policy, 20), batch_size=None)

    def training_step(self, batch, batch_idx):
        states, actions, rewards = batch
        powers = self.hparams.gamma ** torch.arange(len(rewards))
        returns = (rewards * powers).flip(0).cumsum(0).flip(0) / powers
        chosen = self.policy(states).log_softmax(-1).gather(1, actions[:, None])
        loss = -(chosen.squeeze(1) * returns).sum() / self.hparams.episodes_per_update
        self.manual_backward(loss)
        self.lengths.append(len(rewards))
        optimizer, scheduler = self.optimizers(), self.lr_schedulers()
        if (batch_idx + 1) % self.hparams.episodes_per_update == 0:
            self.clip_gradients(optimizer, 1.0, "norm")
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
        self.log("return", rewards.sum(), on_step=False, on_epoch=True, batch_size=1)

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=0.05)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 5, 0.5)]


if __name__ == "__main__":
    L.seed_everything(99)
    model = Reinforce()
    trainer = L.Trainer(
        max_epochs=4,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    trainer.fit(model)
    print(
        json.dumps(
            {
                "metrics": {k: v.item() for k, v in trainer.callback_metrics.items()},
                "lengths": model.lengths,
                "weights": sum(p.double().sum().item() for p in model.parameters()),
                "rate": trainer.optimizers[0].param_groups[0]["lr"],
                "state": [trainer.global_step, trainer.current_epoch],
            }
        )
    )
