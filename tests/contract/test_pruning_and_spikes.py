"""ModelPruning and SpikeDetection on both packages: the same zeros, the same batches."""

from __future__ import annotations

import importlib
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from recording import OURS, REFERENCE, callbacks_of, data, quiet_trainer
from test_callbacks import build, sgd
from torch.nn.utils import prune

from lightgen_runtime.utilities.exceptions import MisconfigurationException

pytestmark = pytest.mark.filterwarnings("ignore")


class Threshold(prune.L1Unstructured):
    """A method of the user's own."""


# A second ticket is another one on a CPU: see `test_lottery_tickets_of_a_cpu`.
ONE_TICKET = {"use_lottery_ticket_hypothesis": lambda epoch: epoch == 1}
PRUNING: dict[str, dict[str, Any]] = {
    "by size": {"pruning_fn": "l1_unstructured"},
    "case of the name": {"pruning_fn": "L1_Unstructured", "amount": 0.2},
    "own class": {"pruning_fn": Threshold, "amount": 3},
    "at random": {"pruning_fn": "random_unstructured", "amount": 0.3},
    "each by size": {"pruning_fn": "l1_unstructured", "use_global_unstructured": False},
    "rows at random": {
        "pruning_fn": "random_structured",
        "pruning_dim": 0,
        "use_global_unstructured": False,
        "parameter_names": ["weight"],
    },
    "columns by norm": {
        "pruning_fn": "ln_structured",
        "pruning_dim": 1,
        "pruning_norm": 2,
        "use_global_unstructured": False,
        "parameter_names": ["weight"],
        "amount": 1,
    },
    "only biases": {"pruning_fn": "l1_unstructured", "parameter_names": ["bias"]},
    "no tickets": {
        "pruning_fn": "l1_unstructured",
        "use_lottery_ticket_hypothesis": False,
    },
    "sometimes tickets": {
        "pruning_fn": "l1_unstructured",
        "use_lottery_ticket_hypothesis": lambda epoch: epoch == 1,
        "resample_parameters": True,
    },
    "by epoch": {
        "pruning_fn": "l1_unstructured",
        "amount": lambda epoch: epoch / 10,
        "apply_pruning": lambda epoch: epoch > 0,
    },
    "masks stay": {"pruning_fn": "l1_unstructured", "make_pruning_permanent": False},
    "at validation": {
        "pruning_fn": "l1_unstructured",
        "prune_on_train_epoch_end": False,
        "use_lottery_ticket_hypothesis": False,
    },
    "never": {"pruning_fn": "l1_unstructured", "apply_pruning": False},
    "nothing": {"pruning_fn": "l1_unstructured", "amount": 0},
}


@pytest.mark.parametrize("name", PRUNING)
def test_the_same_is_pruned(name: str, tmp_path: Path) -> None:
    found = []
    for namespace in (OURS, REFERENCE):
        torch.manual_seed(7)
        arguments = {**ONE_TICKET, **PRUNING[name]}
        callback = callbacks_of(namespace).ModelPruning(**arguments)
        keep = callbacks_of(namespace).ModelCheckpoint(
            tmp_path / namespace, "{epoch}", save_top_k=-1
        )
        module = build(namespace, configure_optimizers=sgd)
        trainer = quiet_trainer(
            namespace,
            max_epochs=3,
            callbacks=[callback, keep],
            enable_checkpointing=True,
        )
        trainer.fit(module, data(12, 2), data(4))
        states = [module.state_dict()]
        for path in sorted((tmp_path / namespace).glob("*.ckpt")):
            states.append(torch.load(path, weights_only=True)["state_dict"])
        found.append(
            [{key: value.tolist() for key, value in s.items()} for s in states]
        )
    assert found[0] == found[1]


def test_chosen_and_filtered_parameters() -> None:
    found = []
    for namespace in (OURS, REFERENCE):
        base = callbacks_of(namespace).ModelPruning

        class Weights(base):  # type: ignore[misc,valid-type]
            def filter_parameters_to_prune(self, parameters_to_prune: Any = ()) -> Any:
                return [pair for pair in parameters_to_prune if pair[1] == "weight"]

        module = build(namespace, configure_optimizers=sgd)
        pairs = [(module.layer, "weight"), (module.layer, "bias")]
        callback = Weights("l1_unstructured", pairs, **ONE_TICKET)
        trainer = quiet_trainer(namespace, max_epochs=2, callbacks=[callback])
        trainer.fit(module, data(12, 2))
        found.append({k: v.tolist() for k, v in module.state_dict().items()})
        strange = base("l1_unstructured", [(torch.nn.Linear(1, 1), "weight")])
        with pytest.raises(Exception, match="parameter") as caught:
            quiet_trainer(namespace, callbacks=[strange]).fit(module, data())
        assert type(caught.value).__name__ == "MisconfigurationException"
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "arguments",
    [
        {"pruning_fn": "smallest"},
        {"pruning_fn": 3},
        {"pruning_fn": prune.L1Unstructured(0.5)},
        {"pruning_fn": prune.L1Unstructured, "use_global_unstructured": False},
        {"pruning_fn": prune.LnStructured},
        {"pruning_fn": "ln_structured", "pruning_dim": 0, "pruning_norm": 1},
        {"pruning_fn": "random_structured", "use_global_unstructured": False},
        {
            "pruning_fn": "ln_structured",
            "pruning_dim": 0,
            "use_global_unstructured": False,
        },
        {"pruning_fn": "l1_unstructured", "parameter_names": ["scale"]},
        {"pruning_fn": "l1_unstructured", "amount": "half"},
        {"pruning_fn": "l1_unstructured", "verbose": 3},
    ],
    ids=lambda arguments: "-".join(arguments) or "none",
)
def test_pruning_that_is_refused(arguments: dict[str, Any]) -> None:
    for namespace in (OURS, REFERENCE):
        exceptions = importlib.import_module(
            f"{namespace}.pytorch.utilities.exceptions"
        )
        with pytest.raises(exceptions.MisconfigurationException):
            callbacks_of(namespace).ModelPruning(**arguments)


@pytest.mark.parametrize("tickets", [True, False])
def test_fit_goes_on_from_a_file_with_masks(tickets: bool, tmp_path: Path) -> None:
    def fit(resume: Path | None = None) -> tuple[Any, Any]:
        callbacks = callbacks_of(OURS)
        pruning = callbacks.ModelPruning(
            "l1_unstructured",
            amount=0.3,
            make_pruning_permanent=False,
            use_lottery_ticket_hypothesis=tickets,
        )
        keep = callbacks.ModelCheckpoint(tmp_path, every_n_train_steps=8, save_top_k=-1)
        added = [pruning] if resume else [pruning, keep]
        trainer = quiet_trainer(
            OURS, max_epochs=3, callbacks=added, enable_checkpointing=not resume
        )
        module = build(OURS, configure_optimizers=sgd)
        trainer.fit(module, data(12, 2), ckpt_path=resume)
        return trainer, module.state_dict()

    trainer, whole = fit()
    path = tmp_path / "epoch=1-step=8.ckpt"
    assert "layer.weight_mask" in torch.load(path, weights_only=True)["state_dict"]
    resumed = fit(path)[1]
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    # The module that was trained has its masks still.
    trainer.validate(ckpt_path=path, verbose=False, dataloaders=data(4))


def test_buffer_that_is_called_a_mask_is_kept(tmp_path: Path) -> None:
    module = build(OURS, configure_optimizers=sgd)
    module.register_buffer("attention_mask", torch.ones(3))
    pruning = callbacks_of(OURS).ModelPruning("l1_unstructured")
    trainer = quiet_trainer(OURS, max_epochs=1, callbacks=[pruning])
    trainer.fit(module, data(12, 2))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    saved = torch.load(tmp_path / "a.ckpt", weights_only=True)["state_dict"]
    assert "attention_mask" in saved


def test_pruning_tells_how_much(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "lightgen_runtime"):
        callback = callbacks_of(OURS).ModelPruning("l1_unstructured", verbose=2)
        module = build(OURS, configure_optimizers=sgd)
        quiet_trainer(OURS, max_epochs=1, callbacks=[callback]).fit(module, data())
    assert "Pruned: 0.00% -> 10/19 (52.63%)" in caplog.text
    assert "`Linear(in_features=3, out_features=1, bias=True).bias`" in caplog.text


def test_filter_that_keeps_nothing_is_refused() -> None:
    base = callbacks_of(OURS).ModelPruning

    class Nothing(base):  # type: ignore[misc,valid-type]
        def filter_parameters_to_prune(self, parameters_to_prune: Any = ()) -> Any:
            return []

    trainer = quiet_trainer(OURS, callbacks=[Nothing("l1_unstructured", verbose=1)])
    with pytest.raises(MisconfigurationException, match="kept none of 4 parameters"):
        trainer.fit(build(OURS, configure_optimizers=sgd), data())


NAN, INF = float("nan"), float("inf")
SPIKES: dict[str, tuple[dict[str, Any], list[float]]] = {
    "none": ({}, [1.0, 0.9, 0.8, 0.9, 1.0, 0.7]),
    "rise": ({}, [1.0, 0.9, 0.8, 9.0, 1.0, 0.7]),
    "just enough": ({"rtol": 2.0}, [1.0, 1.0, 3.0, 1.0]),
    "not enough": ({"rtol": 2.0}, [1.0, 1.0, 2.9, 1.0]),
    "fall": ({"mode": "max"}, [1.0, 1.1, -9.0]),
    "good fall": ({}, [9.0, -9.0, -30.0]),
    "distance": ({"atol": 0.5, "rtol": None}, [1.0, 1.1, 1.2, 1.9]),
    "either alone": ({"atol": 5.0, "rtol": 0.1}, [1.0, 1.1, 1.2, 1.9]),
    "short window": ({"window": 2, "rtol": 0.5}, [9.0, 1.0, 1.0, 1.6]),
    "long window": ({"window": 9, "rtol": 0.5}, [9.0, 1.0, 1.0, 1.6]),
    "warming up": ({"warmup": 3}, [1.0, 9.0, 1.0, 1.0]),
    "no warming up": ({"warmup": 0}, [1.0, 1.0]),
    "NaN": ({}, [1.0, 1.0, NAN]),
    "infinite": ({"finite_only": False}, [1.0, 1.0, INF, 1.0, 9.0]),
    "NaN passed over": ({"finite_only": False}, [1.0, 1.0, NAN, 1.0, 9.0]),
}


@pytest.mark.parametrize(
    ("name", "where"),
    [
        *((name, None) for name in SPIKES),
        *(("rise", where) for where in ("folder", "some/file.json")),
    ],
)
def test_the_same_spikes(name: str, where: str | None, tmp_path: Path) -> None:
    arguments, losses = SPIKES[name]
    found = []
    for namespace in (OURS, REFERENCE):
        root = tmp_path / namespace
        root.mkdir()
        callback = callbacks_of(namespace).SpikeDetection(
            **arguments, exclude_batches_path=where and str(root / where)
        )

        def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
            return self(batch).sum() * 0 + losses[batch_idx]

        methods = {"training_step": training_step, "configure_optimizers": sgd}
        trainer = quiet_trainer(
            namespace, callbacks=[callback], max_epochs=1, default_root_dir=root
        )
        raised = None
        try:
            trainer.fit(build(namespace, **methods), data(2 * len(losses), 2))
        except RuntimeError as error:
            raised = type(error).__name__, str(error)
        files = {
            path.relative_to(root).as_posix(): json.loads(path.read_text())
            for path in root.rglob("*.json")
        }
        found.append((raised, files, callback.bad_batches, trainer.global_step))
    assert found[0] == found[1]


def test_spikes_after_a_resume() -> None:
    first = callbacks_of(OURS).SpikeDetection(rtol=1.0)
    first.last_val = torch.tensor(2.0)
    first._recent.append(torch.tensor(2.0))
    second = callbacks_of(OURS).SpikeDetection()
    second.load_state_dict(first.state_dict())
    assert (second.last_val, second.rtol) == (2.0, 1.0)
    assert second._is_spike(torch.tensor(4.0))
    assert not second._is_spike(torch.tensor(3.9))


def test_exception_has_its_module() -> None:
    name = "lightgen_runtime.pytorch.callbacks.spike"
    error = importlib.import_module(name).TrainingSpikeException(3)
    assert isinstance(error, RuntimeError)
    assert error.batch_idx == 3
