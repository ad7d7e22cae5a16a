"""Several optimizers in automatic optimization, each with a loss of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from lightgen_runtime import LightningModule, Trainer
from lightgen_runtime.utilities.exceptions import MisconfigurationException


class Pair(LightningModule):
    """Two layers that meet in both losses, as in a GAN."""

    def __init__(self, returned: Any = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.maker = torch.nn.Linear(3, 3)
        self.judge = torch.nn.Linear(3, 1)
        self.returned = returned
        self.rates: list[list[float]] = []

    def losses(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        made = self.maker(batch)
        fooled = (self.judge(made) - 1).square().mean()
        told = (
            self.judge(made).square().mean() + (self.judge(batch) - 1).square().mean()
        )
        return fooled, told

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.returned is not None:
            return self.returned
        fooled, told = self.losses(batch)
        return {"maker": fooled, "judge": told, "more": batch}

    def configure_optimizers(self) -> Any:
        maker = torch.optim.Adam(self.maker.parameters(), lr=0.01)
        judge = torch.optim.SGD(self.judge.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.StepLR(judge, 1, gamma=0.5)
        return {
            "maker": maker,
            "judge": {"optimizer": judge, "lr_scheduler": schedule},
        }


def fit(module: LightningModule, **flags: Any) -> Trainer:
    trainer = Trainer(
        **{
            "accelerator": "cpu",
            "max_epochs": 2,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            **flags,
        }
    )
    generator = torch.Generator().manual_seed(1)
    data = torch.randn(12, 3, generator=generator)
    trainer.fit(module, DataLoader(data, batch_size=2))
    return trainer


def by_hand(accumulate: int = 1, clip: float | None = None) -> dict[str, Any]:
    """Train `Pair` in a plain loop: all gradients first, then all steps."""
    module = Pair()
    plan = module.configure_optimizers()
    optimizers = [plan["maker"], plan["judge"]["optimizer"]]
    parts = [list(module.maker.parameters()), list(module.judge.parameters())]
    data = torch.randn(12, 3, generator=torch.Generator().manual_seed(1))
    for _ in range(2):
        for number, batch in enumerate(data.split(2)):
            if number % accumulate == 0:
                for optimizer in optimizers:
                    optimizer.zero_grad()
            losses = module.losses(batch)
            for loss, own in zip(losses, parts, strict=True):
                (loss / accumulate).backward(inputs=own, retain_graph=True)
            if (number + 1) % accumulate == 0:
                for optimizer, own in zip(optimizers, parts, strict=True):
                    if clip:
                        torch.nn.utils.clip_grad_norm_(own, clip)
                    optimizer.step()
        plan["judge"]["lr_scheduler"].step()
    return module.state_dict()


@pytest.mark.parametrize(
    ("accumulate", "clip"), [(1, None), (3, None), (2, 0.05)], ids=str
)
def test_named_losses_train_as_a_loop_by_hand(
    accumulate: int, clip: float | None
) -> None:
    module = Pair()
    trainer = fit(module, accumulate_grad_batches=accumulate, gradient_clip_val=clip)
    assert trainer.global_step == 12 // accumulate
    weights = module.state_dict()
    for name, expected in by_hand(accumulate, clip).items():
        assert torch.equal(weights[name], expected), name
    rates = [o.param_groups[0]["lr"] for o in trainer.optimizers]
    assert rates == [0.01, 0.1 * 0.25]


def test_a_loss_of_none_leaves_its_optimizer_without_gradients() -> None:
    class Skipping(Pair):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return {**super().training_step(batch, batch_idx), "maker": None}

    module, before = Skipping(), Pair().state_dict()
    fit(module)
    assert torch.equal(module.maker.weight, before["maker.weight"])
    assert not torch.equal(module.judge.weight, before["judge.weight"])


def test_hooks_meet_each_optimizer_and_the_outputs_by_name() -> None:
    seen: list[Any] = []

    class Hooked(Pair):
        def on_before_optimizer_step(self, optimizer: Any) -> None:
            seen.append(type(optimizer).__name__)

        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            seen.append(sorted(outputs))
            assert not outputs["maker"].requires_grad

    fit(Hooked(), max_steps=1)
    assert seen == ["Adam", "SGD", ["judge", "maker", "more"]]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (torch.zeros(()), r"returned Tensor; .* for each of the optimizers \['maker'"),
        ({"maker": torch.zeros(())}, r"\['judge'\] missing"),
        ({"maker": 1.0, "judge": None}, "returned float as the loss 'maker'"),
        (
            {"maker": None, "juge": None},
            "Did you mean 'judge' where it says 'juge'",
        ),
    ],
)
def test_wrong_losses_are_named(returned: Any, message: str) -> None:
    with pytest.raises(MisconfigurationException, match=message):
        fit(Pair(returned))


def test_unnamed_optimizers_are_refused_with_both_ways_out() -> None:
    class Listed(Pair):
        def configure_optimizers(self) -> Any:
            plan = super().configure_optimizers()
            return [plan["maker"], plan["judge"]["optimizer"]]

    with pytest.raises(MisconfigurationException, match="return them by name"):
        fit(Listed())


def test_shared_parameters_are_refused() -> None:
    class Shared(Pair):
        def configure_optimizers(self) -> Any:
            return {
                "maker": torch.optim.SGD(self.parameters(), lr=0.1),
                "judge": torch.optim.SGD(self.judge.parameters(), lr=0.1),
            }

    with pytest.raises(MisconfigurationException, match="share a parameter"):
        fit(Shared())


def test_overridden_stepping_is_refused() -> None:
    class Overridden(Pair):
        def backward(self, loss: Any, *args: Any, **kwargs: Any) -> None:
            loss.backward()

    with pytest.raises(MisconfigurationException, match="`backward` is overridden"):
        fit(Overridden())


def test_named_optimizers_resume(tmp_path: Path) -> None:
    whole = Pair()
    fit(whole, max_epochs=3)
    first = fit(Pair(), max_epochs=1)
    path = tmp_path / "one.ckpt"
    first.save_checkpoint(path)
    module = Pair()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=3,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = torch.randn(12, 3, generator=torch.Generator().manual_seed(1))
    trainer.fit(module, DataLoader(data, batch_size=2), ckpt_path=path)
    for name, expected in whole.state_dict().items():
        assert torch.equal(module.state_dict()[name], expected)
