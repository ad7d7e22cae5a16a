"""Plays a drawn run on either package, and records it."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from typing import Any

import torch
from random_runs import EVALUATION_HOOKS, Plan
from run_parts import (
    described,
    log,
    make_loader,
    make_optimizers,
    optimize_by_hand,
    sum_of,
    with_arguments,
)
from run_tape import COUNTS, Tape
from torch.utils._pytree import tree_leaves

LOOKS = tuple(hook for hook in EVALUATION_HOOKS if "predict" not in hook)


def play(namespace: str, plan: Plan, folder: Path) -> Tape:
    """Run a plan and return what was to be seen, up to the first error."""
    tape = Tape()
    player = Player(namespace, plan, folder, tape)
    for number, phase in enumerate(plan["phases"]):
        try:
            player.run(f"{number} {phase['do']}", phase)
        except Exception as error:
            tape.note("error", f"{type(error).__name__}: {error}")
            break
    tape.note_files("files", folder)
    return tape


class Player:
    """The objects of one run on one package."""

    def __init__(self, namespace: str, plan: Plan, folder: Path, tape: Tape) -> None:
        self.namespace, self.plan, self.folder, self.tape = (
            namespace,
            plan,
            folder,
            tape,
        )
        self.as_it_was = folder.with_name(f"{folder.name} as it was")
        self.L = importlib.import_module(namespace)
        self.callbacks = importlib.import_module(f"{namespace}.pytorch.callbacks")
        self.loggers = importlib.import_module(f"{namespace}.pytorch.loggers")
        self.utilities = importlib.import_module(f"{namespace}.pytorch.utilities")
        self.own_folder = "own folder"
        self.module = self.make_module(seed=0)
        self.trainer = self.make_trainer({})
        self.datamodule = self.make_datamodule()

    # ---- phases ----

    def run(self, what: str, phase: dict[str, Any]) -> None:
        """Run one entry point and write down its outcome."""
        torch.manual_seed(self.plan["seed"])
        ckpt_path = None
        if phase["do"] == "resume":
            if phase["from"] == "end of epoch":
                # `test_files_from_behind_the_point_of_resuming`
                self.own_folder = "own folder of the resumed fit"
            self.module = self.make_module(seed=1)
            self.trainer = self.make_trainer({"max_epochs": phase["max_epochs"]})
            self.datamodule = self.make_datamodule()
            ckpt_path = self.folder / f"{phase['from']}.ckpt"
            if phase["from"] == "end of epoch":
                self.forget_what_came_later()
        do = "fit" if phase["do"] == "resume" else phase["do"]
        self.save_at_epoch = phase.get("save_at_epoch")
        self.asked: set[tuple[str, int]] | None = set() if do == "fit" else None
        arguments = self.data_arguments(do)
        if "ckpt_path" in phase:
            arguments["ckpt_path"] = phase["ckpt_path"]
        if do == "fit":
            arguments["ckpt_path"] = ckpt_path
        if do in ("validate", "test"):
            arguments["verbose"] = False
        self.tape.note(what)
        result = getattr(self.trainer, do)(self.module, **arguments)
        self.tape.note(f"{what}: result", result)
        # After a resume Lightning has no metrics of the epochs before.
        metrics = phase["do"] != "resume"
        self.tape.note_end(what, self.trainer, self.module, metrics)
        if self.save_at_epoch is not None:
            self.trainer.save_checkpoint(self.folder / "end of fit.ckpt")

    def forget_what_came_later(self) -> None:
        """Go on in the folder as it was when the file was written, as after a kill.

        `test_files_from_behind_the_point_of_resuming`: Lightning lets them lie.
        """
        shutil.rmtree(self.folder)
        self.as_it_was.rename(self.folder)

    def data_arguments(self, do: str) -> dict[str, Any]:
        where = self.plan["data"]["where"]
        if where == "datamodule":
            return {"datamodule": self.datamodule}
        if where == "module":
            return {}
        if do == "fit":
            return {
                "train_dataloaders": self.loaders("train"),
                "val_dataloaders": self.loaders("val"),
            }
        return {"dataloaders": self.loaders("val" if do == "validate" else do)}

    # ---- data ----

    def loaders(self, stage: str) -> Any:
        spec = self.plan["data"][stage]
        made = [
            make_loader(loader, self.plan["seed"] + number)
            for number, loader in enumerate(spec["loaders"])
        ]
        if not made:
            return None
        if spec["mode"] == "one":
            return made[0]
        if spec["mode"] == "list":
            return made
        named = {f"loader {number}": loader for number, loader in enumerate(made)}
        if spec["mode"] == "dict":
            return named
        combined = self.utilities.CombinedLoader
        return combined(made if stage == "val" else named, spec["mode"])

    def make_datamodule(self) -> Any:
        if self.plan["data"]["where"] != "datamodule":
            return None
        members: dict[str, Any] = self.loader_hooks()
        base = self.L.LightningDataModule
        for hook in ("prepare_data", "setup", "teardown"):
            members[hook] = self.recorded(base, "datamodule", hook)
        hooks = self.plan["module"]["hooks"]
        for hook in ("on_before_batch_transfer", "on_after_batch_transfer"):
            if hook in hooks:
                members[hook] = self.recorded(base, "datamodule", hook)
        members["state_dict"] = lambda datamodule: {"batches": 3}
        members["load_state_dict"] = lambda datamodule, state: self.tape.note(
            "datamodule.load_state_dict", state
        )
        return type("DrawnData", (base,), members)()

    def loader_hooks(self) -> dict[str, Any]:
        def asked(stage: str) -> Any:
            def hook(owner: Any) -> Any:
                self.tape.note(f"{stage}_dataloader")
                return self.loaders(stage)

            return hook

        stages = [s for s in ("train", "val", "test", "predict") if self.has(s)]
        return {f"{stage}_dataloader": asked(stage) for stage in stages}

    def has(self, stage: str) -> bool:
        return bool(self.plan["data"][stage]["loaders"])

    # ---- module ----

    def make_module(self, seed: int) -> Any:
        plan, base = self.plan, self.L.LightningModule
        spec = plan["module"]
        player = self

        class Drawn(base):  # type: ignore[name-defined,misc,valid-type]
            def __init__(self, width: int = 3) -> None:
                super().__init__()
                torch.manual_seed(seed)
                self.automatic_optimization = not plan["mode"].startswith("manual")
                self.first = torch.nn.Linear(4, width)
                self.dropout = torch.nn.Dropout(0.5 if spec["dropout"] else 0.0)
                self.second = torch.nn.Linear(width, 1)
                self.frozen_part = torch.nn.BatchNorm1d(width).eval()
                if spec["hparams"]:
                    self.save_hyperparameters()

            def forward(self, batch: Any) -> Any:
                leaves = [leaf for leaf in tree_leaves(batch) if leaf is not None]
                outputs = [
                    self.second(self.dropout(torch.relu(self.first(leaf))))
                    for leaf in leaves
                ]
                return torch.cat([output.flatten() for output in outputs])

            def configure_optimizers(self) -> Any:
                player.tape.note("configure_optimizers")
                return make_optimizers(self, plan)

        members = player.steps()
        for hook in spec["hooks"]:
            if hasattr(base, hook):
                members[hook] = self.recorded(base, "module", hook, spec["logs"])
        for hook in spec["logs"]:
            if hook not in members:
                members[hook] = self.recorded(base, "module", hook, spec["logs"])
        if plan["data"]["where"] == "module":
            members.update(self.loader_hooks())
        if spec["skip_at"] is not None:
            members["on_train_batch_start"] = self.skipping(base)
        return type("DrawnModule", (Drawn,), members)()

    def skipping(self, base: Any) -> Any:
        spec = self.plan["module"]
        hook = self.recorded(base, "module", "on_train_batch_start", spec["logs"])

        def on_train_batch_start(module: Any, batch: Any, batch_idx: int) -> Any:
            hook(module, batch, batch_idx)
            return -1 if batch_idx == spec["skip_at"] else None

        return on_train_batch_start

    def steps(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, number in self.plan["module"]["arguments"].items():
            found[name] = with_arguments(self.step(name), number)
        return found

    def step(self, name: str) -> Any:
        plan, tape = self.plan, self.tape

        def body(module: Any, batch: Any, batch_idx: Any, *others: Any) -> Any:
            output = module(batch)
            loss = output.pow(2).mean()
            facts = {
                "batch_idx": batch_idx,
                "others": others,
                "batch": sum_of(batch),
                "loss": loss,
                "grad": torch.is_grad_enabled(),
                "training": [part.training for part in module.modules()],
                "requires grad": [p.requires_grad for p in module.parameters()],
            }
            tape.note(f"module.{name}", facts)
            for entry in plan["module"]["logs"].get(name, []):
                log(module, entry, batch, batch_idx or 0, loss, others)
            if name == "predict_step":
                return output
            if name != "training_step":
                return {"loss": loss, "sum": sum_of(batch)}
            if plan["mode"].startswith("manual"):
                optimize_by_hand(module, loss, batch)
            return self.returned(loss, batch)

        return body

    def returned(self, loss: Any, batch: Any) -> Any:
        form = self.plan["module"]["returns"]
        if form == "mapping":
            return {"loss": loss, "sum": sum_of(batch)}
        if form == "nothing" or (form == "some None" and sum_of(batch) > 0):
            return None
        return loss

    # ---- recording hooks ----

    def recorded(
        self, base: Any, who: str, name: str, logs: dict[str, Any] | None = None
    ) -> Any:
        """Return a hook that notes its call, logs what is drawn and does as before."""
        original = getattr(base, name)
        tape, entries = self.tape, (logs or {}).get(name, [])

        def hook(owner: Any, *args: Any, **kwargs: Any) -> Any:
            if self.is_question(name, owner):
                return original(owner, *args, **kwargs)
            facts = [described(value) for value in (*args, *kwargs.values())]
            tape.note(f"{who}.{name}", facts)
            if who == "module":
                for entry in entries:
                    log(owner, entry, None, 0, None, ())
            return original(owner, *args, **kwargs)

        return hook

    def is_question(self, hook: str, owner: Any) -> bool:
        """Tell whether a hook is asked what it would save, which only ours does.

        It does once in a fit that is going to save: `test_hook_before_a_file_is_written`.
        """
        saving = self.trainer.checkpoint_callbacks
        if owner is not self.trainer.lightning_module:
            saving = [each for each in saving if not each.save_weights_only]
        if (
            self.namespace != "lightgen_runtime"
            or not saving
            or self.trainer.fast_dev_run
            or self.asked is None
            or hook not in ("state_dict", "on_save_checkpoint")
            or (hook, id(owner)) in self.asked
        ):
            return False
        self.asked.add((hook, id(owner)))
        return True

    # ---- trainer ----

    def make_trainer(self, changes: dict[str, Any]) -> Any:
        plan = self.plan
        made = [self.make_callback(spec) for spec in plan["callbacks"]]
        flags = {
            "accelerator": "cpu",
            "devices": 1,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": any(
                spec["kind"] == "checkpoint" for spec in plan["callbacks"]
            ),
            "default_root_dir": self.folder,
            "logger": self.make_logger() if plan["logger"] else False,
            **plan["trainer"],
            **changes,
        }
        return self.L.Trainer(callbacks=made, **flags)

    def make_logger(self) -> Any:
        tape = self.tape

        class Recorder(self.loggers.Logger):  # type: ignore[name-defined,misc]
            name = "recorder"
            version = 0

            def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
                tape.note("logger.log_hyperparams", dict(params))

            def log_metrics(self, metrics: Any, step: Any = None) -> None:
                tape.note("logger.log_metrics", [step, dict(metrics)])

            def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
                tape.note("logger.after_save_checkpoint")

            def finalize(self, status: str) -> None:
                tape.note("logger.finalize", status)

        return Recorder()

    def make_callback(self, spec: dict[str, Any]) -> Any:
        if spec["kind"] == "recorder":
            return self.recorder(spec)
        if spec["kind"] == "stop":
            return self.stopper(spec)
        if spec["kind"] == "rates":
            return self.callbacks.LearningRateMonitor(spec["interval"])
        if spec["kind"] == "accumulation":
            return self.callbacks.GradientAccumulationScheduler(spec["scheduling"])
        arguments = dict(spec["arguments"])
        if spec["kind"] == "early stopping":
            return self.callbacks.EarlyStopping(**arguments)
        if spec["folder"]:
            arguments["dirpath"] = self.folder / self.own_folder
        return self.callbacks.ModelCheckpoint(**arguments)

    def recorder(self, spec: dict[str, Any]) -> Any:
        base, player = self.L.Callback, self
        members = {}
        logs = spec["logs"]
        for name in {*spec["hooks"], *logs, "on_train_epoch_end"}:
            members[name] = self.callback_hook(base, name, spec, logs.get(name, []))

        def save(callback: Any, trainer: Any, module: Any) -> None:
            members["noted"](callback, trainer, module)
            if player.save_at_epoch == trainer.current_epoch:
                trainer.save_checkpoint(player.folder / "end of epoch.ckpt")
                shutil.copytree(player.folder, player.as_it_was)

        members["noted"] = members["on_train_epoch_end"]
        members["on_train_epoch_end"] = save
        return type("Recorder", (base,), members)()

    def callback_hook(
        self, base: Any, name: str, spec: dict[str, Any], entries: list[Any]
    ) -> Any:
        original, tape = getattr(base, name), self.tape
        looks = spec["looks"] and name.startswith(("on_train_", *LOOKS))
        counts = self.counts() if name.startswith("on_train_") else []
        several = self.plan["module"]["several"]["val"]

        def hook(callback: Any, *args: Any, **kwargs: Any) -> Any:
            if self.is_question(name, callback):
                return original(callback, *args, **kwargs)
            facts = [described(value) for value in (*args[2:], *kwargs.values())]
            tape.note(f"callback.{name}", facts)
            if looks:
                # `test_metrics_of_several_loaders_in_the_sanity_check`
                metrics = not (args[0].sanity_checking and several)
                tape.note_trainer(f"callback.{name}", args[0], counts, metrics)
            for entry in entries:
                log(args[1], entry, None, 0, None, ())
            return original(callback, *args, **kwargs)

        return hook

    def counts(self) -> list[str]:
        """Return which counts have the same value in both packages."""
        plan, flags = self.plan, self.plan["trainer"]
        left_out = set()
        streams = any(s["kind"] == "stream" for s in plan["data"]["train"]["loaders"])
        if streams and not flags.keys() & {"limit_train_batches", "fast_dev_run"}:
            # `test_estimated_steps_of_an_iterable_loader`
            left_out.add("estimated_stepping_batches")
        if any(spec["kind"] == "accumulation" for spec in plan["callbacks"]):
            # `test_estimated_steps_of_scheduled_accumulation`
            left_out.add("estimated_stepping_batches")
        if "check_val_every_n_epoch" in flags:
            # `test_numbers_of_batches_before_the_first_validation`
            left_out |= {"num_val_batches", "num_sanity_val_batches"}
        return [name for name in COUNTS if name not in left_out]

    def stopper(self, spec: dict[str, Any]) -> Any:
        def hook(callback: Any, trainer: Any, module: Any, *args: Any) -> None:
            if trainer.global_step >= spec["at"] and not trainer.sanity_checking:
                trainer.should_stop = True

        return type("Stopper", (self.L.Callback,), {spec["hook"]: hook})()
