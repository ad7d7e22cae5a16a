"""ModelCheckpoint on both packages: the same files, names and attributes after a run."""

from __future__ import annotations

import importlib
import math
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from recording import OURS, REFERENCE, callbacks_of, data, quiet_trainer, small_module

NAN, INF = math.nan, math.inf
ATTRIBUTES = (
    *("best_model_path", "best_model_score", "best_k_models", "kth_best_model_path"),
    *("kth_value", "last_model_path", "current_score", "dirpath", "filename", "mode"),
    *(
        "monitor",
        "save_top_k",
        "save_last",
        "save_weights_only",
        "verbose",
        "state_key",
    ),
    *("every_n_epochs", "auto_insert_metric_name", "save_on_exception"),
    *("CHECKPOINT_JOIN_CHAR", "CHECKPOINT_EQUALS_CHAR", "CHECKPOINT_NAME_LAST"),
    *("FILE_EXTENSION", "STARTING_VERSION"),
)

pytestmark = pytest.mark.filterwarnings("ignore")


def scripted(namespace: str, scores: list[float], name: str = "val/loss") -> Any:
    """Return a module whose validation logs one of `scores` after the other."""
    base = small_module(namespace)

    class Scripted(base):  # type: ignore[misc,valid-type]
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.log("train_loss", 10.0 - self.trainer.global_step)
            return self.layer(batch).pow(2).mean()

        def on_train_epoch_end(self) -> None:
            self.log("at_end", float(self.current_epoch % 2))

        def on_validation_epoch_end(self) -> None:
            if not self.trainer.sanity_checking:
                self.log(name, scores[min(self.done, len(scores) - 1)])
                self.done += 1

    module = Scripted()
    module.done = 0
    return module


def plain(value: Any, root: Path) -> Any:
    """Return an attribute as text or numbers that two packages can have in common."""
    if isinstance(value, torch.Tensor):
        return repr(value.item())  # NaN is equal to itself only as text
    if isinstance(value, dict):
        return [[plain(k, root), plain(v, root)] for k, v in value.items()]
    if isinstance(value, str | os.PathLike):
        return str(value).replace(str(root), "ROOT")
    return value


def files_in(root: Path) -> dict[str, str]:
    """Return each file and what it is a link to, or which step it was written at."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            found[name] = f"-> {path.readlink().name}"
        elif path.suffix == ".ckpt":
            saved = torch.load(path, weights_only=True)
            kind = "all" if "optimizer_states" in saved else "weights"
            found[name] = f"{saved['epoch']} {saved['global_step']} {kind}"
    return found


class Run:
    """A fit with one ModelCheckpoint, and what it left."""

    def __init__(
        self,
        namespace: str,
        root: Path,
        arguments: dict[str, Any],
        scores: list[float],
        resume: str | None = None,
        **flags: Any,
    ) -> None:
        arguments = dict(arguments)
        if "dirpath" not in arguments:
            arguments["dirpath"] = root / "files"
        self.root = root
        self.checkpoint = callbacks_of(namespace).ModelCheckpoint(**arguments)
        self.trainer = quiet_trainer(
            namespace,
            default_root_dir=root,
            callbacks=[self.checkpoint],
            enable_checkpointing=True,
            **{"max_epochs": len(scores), **flags},
        )
        self.module = scripted(namespace, scores)
        path = None if resume is None else root / "files" / resume
        self.trainer.fit(self.module, data(), data(4), ckpt_path=path)

    @property
    def outcome(self) -> Any:
        attributes = {
            name: plain(getattr(self.checkpoint, name), self.root)
            for name in ATTRIBUTES
        }
        return files_in(self.root), attributes


MONITOR = {"monitor": "val/loss", "filename": "{epoch}"}
FALLING, MIXED = [3.0, 2.0, 1.0], [2.0, 3.0, 1.0, 1.0, 2.5]

SCENARIOS: dict[str, tuple[dict[str, Any], list[float], dict[str, Any]]] = {
    "default": ({}, FALLING, {}),
    "default all": ({"save_top_k": -1}, FALLING, {}),
    "default none": ({"save_top_k": 0}, FALLING, {}),
    "best": (MONITOR, MIXED, {}),
    "best of ties": (MONITOR, [1.0, 1.0, 1.0], {}),
    "best two of ties": ({**MONITOR, "save_top_k": 2}, [1.0, 1.0, 1.0, 1.0], {}),
    "best three": ({**MONITOR, "save_top_k": 3}, MIXED, {}),
    "greatest two": ({**MONITOR, "save_top_k": 2, "mode": "max"}, MIXED, {}),
    "more than there are": ({**MONITOR, "save_top_k": 9}, MIXED, {}),
    "ranked all": ({**MONITOR, "save_top_k": -1}, MIXED, {}),
    "NaN first": ({**MONITOR, "save_top_k": 2}, [NAN, 2.0, 1.0, 3.0], {}),
    "NaN last": ({**MONITOR, "save_top_k": 2}, [2.0, 1.0, NAN], {}),
    "NaN among the greatest": (
        {**MONITOR, "save_top_k": 2, "mode": "max"},
        [NAN, 2.0, NAN, 3.0],
        {},
    ),
    "nothing but NaN": ({**MONITOR, "save_top_k": 2}, [NAN, NAN, NAN], {}),
    "infinite": ({**MONITOR, "save_top_k": 2}, [INF, 1.0, -INF, 2.0], {}),
    "last": ({**MONITOR, "save_last": True}, FALLING, {}),
    "last, all": ({"save_top_k": -1, "save_last": True}, FALLING, {}),
    "link": ({**MONITOR, "save_last": "link"}, FALLING, {}),
    "link, and worse at the end": ({**MONITOR, "save_last": "link"}, MIXED, {}),
    "link, all": ({"save_top_k": -1, "save_last": "link"}, FALLING, {}),
    "no last": ({**MONITOR, "save_last": False}, MIXED, {}),
    "weights": ({"save_weights_only": True, "save_last": True}, FALLING, {}),
    "steps": ({"every_n_train_steps": 3, "save_top_k": -1}, FALLING, {}),
    "steps, newest": ({"every_n_train_steps": 3}, FALLING, {}),
    "steps, ranked": (
        {"every_n_train_steps": 2, "monitor": "train_loss", "save_top_k": 2},
        FALLING,
        {},
    ),
    "steps, greatest": (
        {"every_n_train_steps": 2, "monitor": "train_loss", "mode": "max"},
        FALLING,
        {},
    ),
    "steps, last": (
        {"every_n_train_steps": 3, "save_top_k": 0, "save_last": True},
        FALLING,
        {},
    ),
    "steps of accumulation": (
        {"every_n_train_steps": 2, "save_top_k": -1},
        FALLING,
        {"accumulate_grad_batches": 2},
    ),
    "time": (
        {"train_time_interval": timedelta(hours=1), "save_last": True},
        FALLING,
        {},
    ),
    "all the time": (
        {"train_time_interval": timedelta(0), "save_top_k": -1},
        FALLING,
        {},
    ),
    "every second epoch": ({"every_n_epochs": 2, "save_top_k": -1}, MIXED, {}),
    "every second epoch, last": ({"every_n_epochs": 2, "save_last": True}, MIXED, {}),
    "never by epochs": ({"every_n_epochs": 0, "save_last": True}, FALLING, {}),
    "at the end of epochs": (
        {"save_on_train_epoch_end": True, "monitor": "at_end", "save_top_k": 2},
        MIXED,
        {},
    ),
    "at validation": ({**MONITOR, "save_on_train_epoch_end": False}, MIXED, {}),
    "validation in mid-epoch": (
        {**MONITOR, "filename": "{epoch}-{step}", "save_top_k": -1},
        MIXED,
        {"val_check_interval": 2, "max_epochs": 2},
    ),
    "mid-epoch, but at the end": (
        {"monitor": "val/loss", "save_on_train_epoch_end": True, "save_top_k": -1},
        MIXED,
        {"val_check_interval": 2, "max_epochs": 2},
    ),
    "validation in every second epoch": (
        {**MONITOR, "save_top_k": -1},
        MIXED,
        {"check_val_every_n_epoch": 2, "max_epochs": 5},
    ),
    "without validation": ({"save_top_k": -1}, FALLING, {"limit_val_batches": 0}),
    "max_steps": ({"save_last": True}, FALLING, {"max_epochs": -1, "max_steps": 6}),
    "trial run": ({"save_top_k": -1}, FALLING, {"fast_dev_run": True}),
    "steps at the end of epochs": (
        {
            "every_n_train_steps": 4,
            "monitor": "val/loss",
            "save_on_train_epoch_end": False,
            "save_top_k": -1,
        },
        MIXED,
        {},
    ),
    "format": (
        {"filename": "{epoch:02d}-{val/loss:.2f}", "monitor": "val/loss"},
        MIXED,
        {},
    ),
    "without names": (
        {
            "filename": "e{epoch:03d}-l{val/loss:.1f}",
            "monitor": "val/loss",
            "auto_insert_metric_name": False,
        },
        MIXED,
        {},
    ),
    "metric that is not there": ({"filename": "{nobody}-{epoch}"}, FALLING, {}),
    "same name": ({"filename": "same", "save_top_k": -1}, FALLING, {}),
    "same name, ranked": (
        {"filename": "same", "monitor": "val/loss", "save_top_k": 2},
        MIXED,
        {},
    ),
    "same name, overwritten": (
        {"filename": "same", "save_top_k": -1, "enable_version_counter": False},
        FALLING,
        {},
    ),
    "below a folder": ({"filename": "some/{epoch}", "save_top_k": -1}, FALLING, {}),
    "by epoch": ({"monitor": "epoch", "mode": "max", "save_top_k": 2}, FALLING, {}),
    "by step": ({"monitor": "step", "save_top_k": 2}, FALLING, {}),
    "default folder": ({"dirpath": None}, FALLING, {}),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_files_and_attributes(name: str, same: Any) -> None:
    arguments, scores, flags = SCENARIOS[name]
    same(lambda ns, root: Run(ns, root, arguments, scores, **flags).outcome)


def test_second_run_in_the_folder_of_the_first(same: Any) -> None:
    arguments = {**MONITOR, "save_top_k": 2, "save_last": True}

    def scenario(namespace: str, root: Path) -> Any:
        first = Run(namespace, root, arguments, FALLING).outcome
        return first, Run(namespace, root, arguments, FALLING).outcome

    assert "files/epoch=2-v1.ckpt" in same(scenario)[1][0]


@pytest.mark.parametrize("elsewhere", [False, True])
def test_resumed_run_goes_on_with_the_files_of_the_first(
    elsewhere: bool, same: Any
) -> None:
    arguments = {**MONITOR, "save_top_k": 2, "save_last": True}

    def scenario(namespace: str, root: Path) -> Any:
        Run(namespace, root, arguments, FALLING)
        more = {**arguments, "dirpath": root / "more"} if elsewhere else arguments
        resumed = Run(
            namespace,
            root,
            more,
            [0.5, 4.0, 0.25, 0.125],
            resume="epoch=2.ckpt",
            max_epochs=7,
        )
        return resumed.outcome

    same(scenario)


def test_logger_decides_about_the_folder(same: Any) -> None:
    def scenario(namespace: str, root: Path) -> Any:
        loggers = importlib.import_module(f"{namespace}.pytorch.loggers")
        found = []
        for name, version in (("some", None), ("", "v"), ("other", 7)):
            logger = loggers.CSVLogger(root / "logs", name=name, version=version)
            run = Run(namespace, root, {"dirpath": None}, FALLING, logger=logger)
            found.append(plain(run.checkpoint.dirpath, root))
        return found, [n for n in files_in(root) if n.endswith("ckpt")]

    same(scenario)


def test_loggers_are_told_of_each_file(same: Any) -> None:
    def scenario(namespace: str, root: Path) -> Any:
        loggers = importlib.import_module(f"{namespace}.pytorch.loggers")

        class Listening(loggers.CSVLogger):  # type: ignore[misc,name-defined]
            told: list[Any]

            def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
                self.told.append(Path(checkpoint_callback.best_model_path).name)

        logger = Listening(root)
        logger.told = []
        arguments = {**MONITOR, "save_last": True}
        Run(namespace, root, arguments, FALLING, logger=logger)
        return logger.told

    assert len(same(scenario)) == 6


@pytest.mark.parametrize("dirpath", [None, "some"])
def test_names_without_a_run(dirpath: str | None, same: Any) -> None:
    metrics = {"epoch": 3, "val/loss": 0.123456, "val_loss": 2.0, "val": 1.5, "x.y": 4}
    templates = [
        *("{epoch}", "{epoch:03d}-{val/loss:.2f}", "{val}-{val_loss:.1f}", "plain"),
        *("{missing}", "{missing:d}", "{x.y}", "{epoch}/{step}", "{val:.3e}"),
    ]

    def scenario(namespace: str, root: Path) -> Any:
        found = []
        for template in templates:
            for insert in (True, False):
                checkpoint = callbacks_of(namespace).ModelCheckpoint(
                    dirpath if dirpath is None else root / dirpath,
                    template,
                    auto_insert_metric_name=insert,
                )
                for more in ({}, {"ver": 2}, {"prefix": "p"}, {"filename": "{val}"}):
                    values = {k: torch.tensor(v) for k, v in metrics.items()}
                    name = checkpoint.format_checkpoint_name(values, **more)
                    found.append(plain(name, root))
        return found

    same(scenario)


def test_own_characters(same: Any) -> None:
    def scenario(namespace: str, root: Path) -> Any:
        class Own(callbacks_of(namespace).ModelCheckpoint):  # type: ignore[misc]
            CHECKPOINT_JOIN_CHAR = "_"
            CHECKPOINT_EQUALS_CHAR = ":"
            CHECKPOINT_NAME_LAST = "newest-{epoch}"
            FILE_EXTENSION = ".pt"
            STARTING_VERSION = 3

        keep = Own(root, save_last=True, save_top_k=-1)
        same_name = Own(root, filename="same", save_top_k=-1, monitor="step")
        trainer = quiet_trainer(
            namespace,
            callbacks=[keep, same_name],
            enable_checkpointing=True,
            max_epochs=3,
        )
        trainer.fit(scripted(namespace, FALLING), data(), data(4))
        return sorted(path.name for path in root.glob("*.pt"))

    assert "same_v4.pt" in same(scenario)


def test_kept_files_as_yaml(same: Any) -> None:
    def scenario(namespace: str, root: Path) -> Any:
        run = Run(namespace, root, {**MONITOR, "save_top_k": 2}, MIXED)
        run.checkpoint.to_yaml()
        run.checkpoint.to_yaml(root / "own.yaml")
        texts = [path.read_text() for path in sorted(root.rglob("*.yaml"))]
        exists = run.checkpoint.file_exists
        found = [exists(root / name, run.trainer) for name in ("own.yaml", "none")]
        return [text.replace(str(root), "") for text in texts], found

    same(scenario)


@pytest.mark.parametrize("save_last", [None, True, "link"])
def test_file_of_an_exception(save_last: Any, same: Any) -> None:
    def scenario(namespace: str, root: Path) -> Any:
        keep = callbacks_of(namespace).ModelCheckpoint(
            root, save_on_exception=True, every_n_epochs=9, save_last=save_last
        )
        trainer = quiet_trainer(
            namespace, callbacks=[keep], enable_checkpointing=True, max_epochs=3
        )
        module = scripted(namespace, FALLING)
        module.on_before_backward = lambda loss: 1 // (6 - trainer.global_step)
        with pytest.raises(ZeroDivisionError):
            trainer.fit(module, data(), data(4))
        return files_in(root), plain(keep.last_model_path, root)

    assert same(scenario)[0]["epoch=1-step=6.ckpt"] == "1 6 all"


@pytest.mark.parametrize(
    "arguments",
    [
        {"save_top_k": -2},
        {"save_top_k": 2},
        {"mode": "best"},
        {"every_n_train_steps": -1},
        {"every_n_epochs": -1},
        {"every_n_train_steps": 1, "every_n_epochs": 1},
        {"every_n_epochs": 1, "train_time_interval": timedelta(0)},
    ],
    ids=str,
)
def test_arguments_that_are_refused(arguments: dict[str, Any]) -> None:
    for namespace in (OURS, REFERENCE):
        exceptions = importlib.import_module(
            f"{namespace}.pytorch.utilities.exceptions"
        )
        with pytest.raises(exceptions.MisconfigurationException):
            callbacks_of(namespace).ModelCheckpoint(**arguments)
