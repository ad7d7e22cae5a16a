"""Callbacks that do something else on purpose, shown on both packages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from recording import OURS, REFERENCE, callbacks_of, data, quiet_trainer
from test_callbacks import Outcome, build, sgd
from torch.optim import SGD

BOTH = pytest.mark.parametrize("namespace", [OURS, REFERENCE])

pytestmark = pytest.mark.filterwarnings("ignore")


@BOTH
def test_step_after_the_averaged_weights(namespace: str) -> None:
    averaging = callbacks_of(namespace).StochasticWeightAveraging(0.05, 1)
    module = build(namespace, batch_norm=True, configure_optimizers=sgd)
    trainer = quiet_trainer(namespace, max_epochs=2, callbacks=[averaging])
    trainer.fit(module, data(12, 2))
    average = averaging.state_dict()["average_model_state"]["layer.weight"]
    ends_with_the_average = torch.equal(module.layer.weight, average)
    ours = namespace == OURS
    assert ends_with_the_average is ours
    assert trainer.global_step == (12 if ours else 13)


@BOTH
def test_unfrozen_backbone_after_a_resume(namespace: str, tmp_path: Path) -> None:
    def make(callbacks: Any) -> list[Any]:
        return [callbacks.BackboneFinetuning(unfreeze_backbone_at_epoch=1)]

    def fit(epochs: int, resume: Path | None = None) -> Any:
        trainer = quiet_trainer(
            namespace, max_epochs=epochs, callbacks=make(callbacks_of(namespace))
        )
        trainer.fit(
            build(namespace, configure_optimizers=sgd), data(12, 2), ckpt_path=resume
        )
        return trainer

    fit(2).save_checkpoint(tmp_path / "a.ckpt")
    resumed = fit(4, tmp_path / "a.ckpt").lightning_module
    trains = all(p.requires_grad for p in resumed.backbone.parameters())
    assert trains is (namespace == OURS)


@BOTH
def test_lottery_tickets_of_a_cpu(namespace: str) -> None:
    pruning = callbacks_of(namespace).ModelPruning("l1_unstructured", amount=1)
    module = build(namespace, configure_optimizers=sgd)
    began = {name: weight.clone() for name, weight in module.state_dict().items()}
    trainer = quiet_trainer(namespace, max_epochs=2, callbacks=[pruning])
    trainer.fit(module, data(12, 2))
    ended = module.state_dict()
    moved = [int((ended[name] != began[name]).sum()) for name in began]
    assert (sum(moved) == 2) is (namespace == OURS)  # the two that are pruned


@BOTH
@pytest.mark.parametrize("where", ["end", "middle", "before pruning"])
def test_masks_after_a_resume(where: str, namespace: str, tmp_path: Path) -> None:
    """The first weights are drawn anew in each process, the rows and their order are not."""
    callbacks = callbacks_of(namespace)

    def fit(epochs: int, seed: int, resume: Path | None = None) -> Any:
        pruning = callbacks.ModelPruning(
            "l1_unstructured",
            amount=0.3,
            apply_pruning=lambda epoch: epoch
            >= (2 if where == "before pruning" else 0),
            use_lottery_ticket_hypothesis=lambda epoch: epoch == 2,
        )
        saving = callbacks.LambdaCallback(
            on_train_batch_start=lambda trainer, module, batch, batch_idx: (
                trainer.global_step == 14
                and not resume
                and trainer.save_checkpoint(tmp_path / "middle.ckpt")
            )
        )
        trainer = quiet_trainer(
            namespace, max_epochs=epochs, callbacks=[pruning, saving]
        )
        module = build(namespace, configure_optimizers=sgd)
        torch.manual_seed(seed)
        module.backbone[0].reset_parameters()
        module.layer.reset_parameters()
        trainer.fit(module, data(12, 2), ckpt_path=resume)
        return trainer

    whole = fit(4, 1).lightning_module.state_dict()
    first = fit(3 if where == "middle" else 2, 1)
    first.save_checkpoint(tmp_path / "end.ckpt")
    path = tmp_path / ("middle.ckpt" if where == "middle" else "end.ckpt")
    resumed = fit(4, 2, path).lightning_module.state_dict()
    same = all(torch.equal(resumed[name], whole[name]) for name in whole)
    assert same is (namespace == OURS)
    if namespace == REFERENCE and where != "before pruning":
        zeros = [sum(int((w == 0).sum()) for w in s.values()) for s in (whole, resumed)]
        assert zeros[0] > zeros[1]


@BOTH
def test_evaluating_the_file_of_a_failed_fit(namespace: str, tmp_path: Path) -> None:
    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        raise ZeroDivisionError

    methods = {"training_step": training_step, "configure_optimizers": sgd}
    module = build(namespace, **methods)
    callback = callbacks_of(namespace).OnExceptionCheckpoint(tmp_path)
    trainer = quiet_trainer(namespace, callbacks=[callback], enable_checkpointing=None)
    with pytest.raises(ZeroDivisionError):
        trainer.fit(module, data())
    path = Path(callback.ckpt_path)
    trainer.validate(module, data(4), ckpt_path=str(path), verbose=False)
    assert path.exists() is (namespace == OURS)


@BOTH
def test_weights_after_evaluating_an_averaged_checkpoint(
    namespace: str, tmp_path: Path
) -> None:
    validated = []

    def validation_step(self: Any, batch: Any, batch_idx: int) -> None:
        validated.append(self.layer.weight.detach().clone())

    callbacks = callbacks_of(namespace)
    checkpoints = callbacks.ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    trainer = quiet_trainer(
        namespace,
        max_epochs=3,
        callbacks=[callbacks.WeightAveraging(), checkpoints],
        enable_checkpointing=True,
    )
    module = build(namespace, validation_step=validation_step, configure_optimizers=sgd)
    trainer.fit(module, data(12, 2), data(4))
    first = tmp_path / "epoch=0.ckpt"
    trainer.validate(module, data(4), ckpt_path=str(first), verbose=False)
    asked_for = torch.load(first, weights_only=True)["state_dict"]["layer.weight"]
    assert torch.equal(validated[-1], asked_for)
    assert torch.equal(module.layer.weight, asked_for) is (namespace == OURS)


@BOTH
def test_estimated_steps_of_scheduled_accumulation(namespace: str) -> None:
    estimates = []

    def configure_optimizers(self: Any) -> Any:
        estimates.append(self.trainer.estimated_stepping_batches)
        return SGD(self.parameters(), lr=0.1)

    outcome = Outcome(
        namespace,
        lambda c: [c.GradientAccumulationScheduler({1: 2})],
        {"configure_optimizers": configure_optimizers},
    )
    assert outcome.trainer.global_step == 12
    assert estimates == [12 if namespace == OURS else 18]


@BOTH
def test_stream_of_the_tqdm_bar(
    namespace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bar = callbacks_of(namespace).TQDMProgressBar()
    trainer = quiet_trainer(
        namespace, max_epochs=1, callbacks=[bar], enable_progress_bar=True
    )
    trainer.fit(build(namespace, configure_optimizers=sgd), data())
    shown = capsys.readouterr()
    assert ("100%" in shown.err) is (namespace == OURS)
    assert ("100%" in shown.out) is (namespace == REFERENCE)


@BOTH
@pytest.mark.parametrize("name", ["LearningRateFinder", "BatchSizeFinder"])
def test_resume_with_a_finder(name: str, namespace: str, tmp_path: Path) -> None:
    arguments = {"LearningRateFinder": {"num_training_steps": 14}}
    epochs: list[int] = []
    steps: list[int] = []  # of trials too

    def fit(max_epochs: int, resume: Path | None = None) -> Any:
        callbacks = callbacks_of(namespace)
        finder = getattr(callbacks, name)(**arguments.get(name, {"max_trials": 1}))
        look = callbacks.LambdaCallback(
            on_train_epoch_start=lambda trainer, module: epochs.append(
                trainer.current_epoch
            )
        )
        trainer = quiet_trainer(
            namespace,
            max_epochs=max_epochs,
            callbacks=[finder, look],
            default_root_dir=tmp_path,
        )
        module = build(
            namespace,
            configure_optimizers=sgd,
            on_train_batch_start=lambda self, *_: steps.append(self.global_step),
        )
        module.lr, module.batch_size = 0.1, 2
        module.train_dataloader = lambda: data(32, module.batch_size)
        module.val_dataloader = lambda: data(4)
        trainer.fit(module, ckpt_path=resume)
        return trainer

    first = fit(1)
    first.save_checkpoint(tmp_path / "a.ckpt")
    size = first.lightning_module.batch_size
    epochs.clear()
    steps.clear()
    resumed = fit(2, tmp_path / "a.ckpt").lightning_module
    assert epochs[-2:] == ([1] if namespace == OURS else [0, 1])
    if namespace == OURS:
        assert len(steps) == 32 / size  # of the second epoch, and no others
        assert resumed.lr == first.lightning_module.lr
        assert resumed.batch_size == size
    else:
        assert len(steps) > 32 / size


def test_resume_with_spike_detection(tmp_path: Path) -> None:
    def fit(namespace: str, epochs: int, resume: Path | None = None) -> Any:
        spikes = callbacks_of(namespace).SpikeDetection(rtol=99.0)
        trainer = quiet_trainer(
            namespace, max_epochs=epochs, callbacks=[spikes], default_root_dir=tmp_path
        )
        module = build(namespace, configure_optimizers=sgd)
        trainer.fit(module, data(12, 2), ckpt_path=resume)
        return trainer

    for writer in (OURS, REFERENCE):
        fit(writer, 1).save_checkpoint(tmp_path / "a.ckpt")
        assert fit(OURS, 2, tmp_path / "a.ckpt").current_epoch == 2
        with pytest.raises(AttributeError):
            fit(REFERENCE, 2, tmp_path / "a.ckpt")


@BOTH
def test_second_fit_with_scheduled_accumulation(namespace: str) -> None:
    schedule = callbacks_of(namespace).GradientAccumulationScheduler({0: 2})
    trainer = quiet_trainer(namespace, max_epochs=1, callbacks=[schedule])
    module = build(namespace, configure_optimizers=sgd)
    trainer.fit(module, data())
    trainer.fit_loop.max_epochs = 2
    if namespace == OURS:
        trainer.fit(module, data())
        assert trainer.global_step == 4
    else:
        with pytest.raises(ValueError, match="accumulate_grad_batches"):
            trainer.fit(module, data())
