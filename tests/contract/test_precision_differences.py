"""What precisions do differently on purpose: what the reference does, and what is here."""

from __future__ import annotations

import importlib
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from recording import OURS, REFERENCE, data, quiet_trainer, small_module
from test_precision import plugin, scaled
from torch.optim import SGD
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR

from lightgen_runtime.utilities.exceptions import MisconfigurationException

pytestmark = pytest.mark.filterwarnings("ignore")


def fit(namespace: str, **members: Any) -> Any:
    """Fit for 4 batches with a scaler; return the trainer."""
    module = type("Module", (small_module(namespace),), members)()
    precision = scaled(namespace, init_scale=2.0**8)
    trainer = quiet_trainer(namespace, plugins=precision, max_epochs=1)
    trainer.fit(module, data(8))
    return trainer


def overflow_second(self: Any, batch: Any, batch_idx: int) -> Any:
    loss = self.layer(batch).float().pow(2).mean()
    self.log("loss", loss.detach())
    return loss * (1e38 if batch_idx == 1 else 1.0)


def plateau_steps(namespace: str) -> int:
    def configure_optimizers(self: Any) -> Any:
        optimizer = SGD(self.parameters(), lr=0.1)
        scheduler = ReduceLROnPlateau(optimizer)
        config = {"scheduler": scheduler, "interval": "step", "monitor": "loss"}
        return {"optimizer": optimizer, "lr_scheduler": config}

    trainer = fit(
        namespace,
        training_step=overflow_second,
        configure_optimizers=configure_optimizers,
    )
    taken: int = trainer.lr_scheduler_configs[0].scheduler.last_epoch
    return taken


def test_scheduler_after_a_step_that_the_scaler_skipped() -> None:
    def steps(namespace: str, frequency: int) -> tuple[int, int]:
        def configure_optimizers(self: Any) -> Any:
            optimizer = SGD(self.parameters(), lr=0.1)
            scheduler = StepLR(optimizer, 1)
            config = {"interval": "step", "frequency": frequency}
            return [optimizer], [{"scheduler": scheduler, **config}]

        trainer = fit(
            namespace,
            training_step=overflow_second,
            configure_optimizers=configure_optimizers,
        )
        (config,) = trainer.lr_scheduler_configs
        return config.scheduler.last_epoch, trainer.global_step

    assert steps(REFERENCE, 1) == (4, 4)
    assert steps(OURS, 1) == (3, 4)  # it waited once; the step counts all the same
    assert steps(REFERENCE, 3) == (1, 4)  # after the 3rd step, the skipped one counted
    assert steps(OURS, 3) == (1, 4)  # after the 4th, which is the 3rd really taken
    assert steps(REFERENCE, 2) == (2, 4)
    assert steps(OURS, 2) == (1, 4)
    assert plateau_steps(REFERENCE) == 4
    assert plateau_steps(OURS) == 3


def test_weights_in_64_bits_after_a_resume(tmp_path: Path) -> None:
    def is_exact(namespace: str) -> bool:
        trainer = quiet_trainer(namespace, precision="64-true", max_epochs=1)
        trainer.fit(small_module(namespace)(), data(8))
        weight = trainer.model.layer.weight.detach().clone()
        trainer.save_checkpoint(tmp_path / "x.ckpt")
        module = small_module(namespace)()
        trainer.validate(module, data(4), ckpt_path=tmp_path / "x.ckpt", verbose=False)
        return torch.equal(module.layer.weight, weight)

    assert not is_exact(REFERENCE)
    assert is_exact(OURS)


def test_clipping_by_hand_with_a_scaler() -> None:
    def norm_at_step(namespace: str) -> float:
        norms = []

        def training_step(self: Any, batch: Any, batch_idx: int) -> None:
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(self.layer(batch).float().pow(2).mean())
            self.clip_gradients(optimizer, 0.5, "norm")
            optimizer.step()

        def on_before_optimizer_step(self: Any, optimizer: Any) -> None:
            gradients = [p.grad.flatten() for p in self.parameters()]
            norms.append(float(torch.cat(gradients).norm()))

        def setup(self: Any, stage: str) -> None:
            self.automatic_optimization = False

        fit(
            namespace,
            training_step=training_step,
            on_before_optimizer_step=on_before_optimizer_step,
            setup=setup,
        )
        return max(norms)

    assert norm_at_step(REFERENCE) < 1e-2  # 0.5, divided by the scale
    assert norm_at_step(OURS) == pytest.approx(0.5, rel=1e-3)


def test_two_losses_of_one_scale_by_hand() -> None:
    def gradient_at_step(namespace: str) -> float:
        """Let the first of two optimizers overflow, and return the second's gradient."""
        seen: dict[str, float] = {}

        def training_step(self: Any, batch: Any, batch_idx: int) -> None:
            first, second = self.optimizers()
            self.manual_backward(self.layer.weight.sum() * 1e38)
            self.manual_backward(self.layer.bias.sum() * 3)
            first.step()
            second.step()

        def configure_optimizers(self: Any) -> Any:
            return [SGD([self.layer.weight], lr=0.1), SGD([self.layer.bias], lr=0.1)]

        def on_before_optimizer_step(self: Any, optimizer: Any) -> None:
            if optimizer.param_groups[0]["params"][0] is self.layer.bias:
                seen.setdefault("bias", float(self.layer.bias.grad))

        def setup(self: Any, stage: str) -> None:
            self.automatic_optimization = False

        fit(
            namespace,
            training_step=training_step,
            configure_optimizers=configure_optimizers,
            on_before_optimizer_step=on_before_optimizer_step,
            setup=setup,
        )
        return seen["bias"]

    assert gradient_at_step(REFERENCE) == 6.0  # divided by the scale after the overflow
    assert gradient_at_step(OURS) == 3.0


def test_scaled_window_whose_last_batch_has_no_loss() -> None:
    def steps(namespace: str) -> bool:
        def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
            return None if batch_idx % 2 else self.layer(batch).float().pow(2).mean()

        module = type(
            "Module", (small_module(namespace),), {"training_step": training_step}
        )()
        before = module.layer.weight.detach().clone()
        trainer = quiet_trainer(
            namespace,
            plugins=scaled(namespace),
            max_epochs=1,
            accumulate_grad_batches=2,
        )
        trainer.fit(module, data(8))
        return not torch.equal(module.layer.weight, before)

    assert not steps(REFERENCE)
    assert steps(OURS)


def test_scaled_step_after_calling_the_closure() -> None:
    def steps(namespace: str) -> bool:
        def optimizer_step(
            self: Any, epoch: int, batch_idx: int, optimizer: Any, closure: Any
        ) -> None:
            self.before = self.layer.weight.detach().clone()
            closure()
            optimizer.step()

        module = fit(namespace, optimizer_step=optimizer_step).model
        return not torch.equal(module.layer.weight, module.before)

    assert not steps(REFERENCE)
    assert steps(OURS)


def test_error_for_a_precision_that_cannot_be() -> None:
    for flags in ({"precision": "16-mixd"}, {"precision": "32-true", "plugins": "own"}):
        for namespace, kind in (
            (OURS, MisconfigurationException),
            (REFERENCE, ValueError),
        ):
            given = dict(flags)
            if "plugins" in given:
                given["plugins"] = plugin(namespace, "Precision")()
            with pytest.raises(kind):
                quiet_trainer(namespace, **given)


def test_removal_while_a_thread_writes_checkpoints(tmp_path: Path) -> None:
    def is_removed_first(namespace: str) -> bool:
        io = importlib.import_module(f"{namespace}.pytorch.plugins.io")
        writes = threading.Event()

        class Slow(io.TorchCheckpointIO):  # type: ignore[name-defined,misc]
            def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
                assert writes.wait(60)
                super().save_checkpoint(*args, **kwargs)

        old, new = tmp_path / "old.ckpt", tmp_path / "new.ckpt"
        old.touch()
        store = io.AsyncCheckpointIO(Slow())
        store.save_checkpoint({"state_dict": {}}, new)
        store.remove_checkpoint(old)
        removed = not old.exists()
        writes.set()
        store.teardown()
        assert new.exists()
        assert not old.exists()
        return removed

    assert is_removed_first(REFERENCE)
    assert not is_removed_first(OURS)
