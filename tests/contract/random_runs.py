"""Draws a run from a seed: plain data that says everything about it.

What is drawn stays off the differences that docs/compat.md lists: accumulation windows
divide the epoch, schedulers that step by batch have frequency 1, a resume starts at an
epoch's end, monitored metrics are logged.
"""

from __future__ import annotations

import random
from typing import Any

Plan = dict[str, Any]

STEP_HOOKS = [
    "on_train_batch_start",
    "on_train_batch_end",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
]
FIT_HOOKS = [
    "on_fit_start",
    "on_fit_end",
    "on_train_start",
    "on_train_end",
    "on_train_epoch_start",
    "on_train_epoch_end",
]
MODULE_ONLY = [
    "prepare_data",
    "configure_model",
    "configure_gradient_clipping",
    "lr_scheduler_step",
    "on_validation_model_zero_grad",
    "on_validation_model_eval",
    "on_validation_model_train",
    "on_test_model_eval",
    "on_test_model_train",
    "on_before_batch_transfer",
    "transfer_batch_to_device",
    "on_after_batch_transfer",
]
BOTH = ["setup", "teardown", "on_save_checkpoint", "on_load_checkpoint"]
CLOSURE_HOOKS = ["optimizer_step", "optimizer_zero_grad", "backward"]
EVALUATION_HOOKS = [
    f"on_{stage}_{part}"
    for stage in ("validation", "test", "predict")
    for part in ("start", "end", "epoch_start", "epoch_end", "batch_start", "batch_end")
]
CALLBACK_ONLY = [
    "on_sanity_check_start",
    "on_sanity_check_end",
    "on_exception",
    "state_dict",
    "load_state_dict",
]
PER_STEP_LOGGING = ["training_step", "on_train_batch_start", "on_train_batch_end"]
PER_STEP_LOGGING += ["on_before_zero_grad", "on_after_backward"]
PER_STEP_LOGGING += ["on_before_optimizer_step"]
PER_STEP_LOGGING += ["on_before_backward", "configure_gradient_clipping"]
PER_EPOCH_LOGGING = ["on_train_start", "on_train_epoch_start", "on_train_epoch_end"]
TWICE_A_BATCH = ["on_before_backward", "on_after_backward", "on_before_optimizer_step"]
EVALUATION_LOGGING = [
    f"on_{stage}_{part}"
    for stage in ("validation", "test")
    for part in ("start", "epoch_start", "epoch_end", "batch_start", "batch_end")
]


def draw(seed: int) -> Plan:
    """Return the run of a seed; the same every time."""
    r = random.Random(seed)
    plan: Plan = {"seed": seed}
    plan["data"] = _data(r)
    plan["mode"] = r.choice(["automatic"] * 4 + ["closure", "manual", "manual 2"])
    plan["trainer"] = _flags(r, plan)
    plan["module"] = _module(r, plan)
    plan["optimizer"] = _optimizer(r, plan)
    plan["logger"] = r.random() < 0.9
    plan["callbacks"] = _callbacks(r, plan)
    plan["phases"] = _phases(r, plan)
    return plan


# ---- data ----


def _loader(r: random.Random, largest: int = 6) -> dict[str, Any]:
    batch = r.choice([1, 2, 2, 3])
    batches = r.randint(1, largest)
    short = r.randint(0, batch - 1) if batches > 1 else 0
    kind = r.choice(["plain"] * 4 + ["shuffled"] * 3 + ["stream", "own"])
    return {"rows": batch * batches - short, "batch": batch, "kind": kind}


def _data(r: random.Random) -> dict[str, Any]:
    train: dict[str, Any] = {"loaders": [_loader(r)], "mode": "one"}
    if r.random() < 0.2:
        modes = ["list", "dict", "min_size", "max_size", "max_size_cycle"]
        train = {
            "loaders": [_loader(r), _loader(r)],
            "mode": r.choice(modes),
        }
    data = {"train": train}
    for stage, likely in (("val", 0.85), ("test", 1.0), ("predict", 1.0)):
        number = r.choice([1, 1, 1, 2]) if r.random() < likely else 0
        modes = ["list", "sequential"]
        if stage != "predict":
            modes += ["min_size", "max_size", "max_size_cycle"]
        data[stage] = {
            "loaders": [_loader(r, 3) for _ in range(number)],
            "mode": "one" if number < 2 else r.choice(modes),
        }
    data["where"] = r.choice(["arguments", "arguments", "module", "datamodule"])
    return data


def _shortest(spec: dict[str, Any]) -> int:
    """Return the number of batches of the shortest loader."""
    return min(-(-loader["rows"] // loader["batch"]) for loader in spec["loaders"])


def _make_plain(data: dict[str, Any]) -> None:
    """Take shuffling away: Lightning opens a reloaded loader twice, and draws twice."""
    for stage in ("train", "val"):
        for loader in data[stage]["loaders"]:
            if loader["kind"] == "shuffled":
                loader["kind"] = "plain"


def batches_of(spec: dict[str, Any], limit: float | int = 1.0) -> int:
    """Return how many batches an epoch of a combination of loaders has."""
    lengths = []
    for loader in spec["loaders"]:
        length = -(-loader["rows"] // loader["batch"])
        length = min(length, limit) if isinstance(limit, int) else int(length * limit)
        lengths.append(length)
    return min(lengths) if spec["mode"] == "min_size" else max(lengths)


def _sized(spec: dict[str, Any]) -> bool:
    return all(loader["kind"] != "stream" for loader in spec["loaders"])


# ---- flags ----


def _flags(r: random.Random, plan: Plan) -> dict[str, Any]:
    data = plan["data"]
    flags: dict[str, Any] = {"max_epochs": r.choice([1, 2, 2, 3, 4])}
    if r.random() < 0.03:
        flags["max_epochs"] = 0
    if r.random() < 0.08:
        # A limit beyond the end of an iterable loader keeps Lightning from validating.
        longest = 3 if _sized(data["train"]) else min(3, _shortest(data["train"]))
        flags["fast_dev_run"] = r.choice([True, r.randint(1, longest)])
    if r.random() < 0.15:
        flags["max_steps"] = r.randint(1, 9)
        flags["max_epochs"] = r.choice([-1, 4])
    if r.random() < 0.15:
        flags["min_epochs"] = r.randint(1, 3)
    if r.random() < 0.15:
        flags["min_steps"] = r.randint(1, 9)
    for stage in ("train", "val", "test", "predict"):
        if r.random() < 0.2 and data[stage]["loaders"]:
            limits: list[Any] = list(range(1, min(3, _shortest(data[stage])) + 1))
            if _sized(data[stage]) and _shortest(data[stage]) > 1:
                limits += [0.5, 0.7]
            if stage == "val":
                limits += [0, 0.0]
            elif stage == "train" and r.random() < 0.2:
                limits = [0, 0.0]
            elif _sized(data[stage]):
                limits.append(9)
            flags[f"limit_{stage}_batches"] = r.choice(limits)
    if r.random() < 0.06 and _sized(data["train"]):
        flags["overfit_batches"] = r.choice([1, 2])
    if r.random() < 0.3:
        flags["num_sanity_val_steps"] = r.choice([0, 1, 3, -1])
    flags["log_every_n_steps"] = r.choice([1, 1, 2, 3, 50])
    if r.random() < 0.15:
        flags["reload_dataloaders_every_n_epochs"] = r.randint(1, 2)
        _make_plain(data)
    if r.random() < 0.1:
        flags["detect_anomaly"] = True
    if r.random() < 0.1:
        flags["inference_mode"] = False
    _validation_flags(r, plan, flags)
    if plan["mode"] in ("automatic", "closure"):
        _window_flags(r, plan, flags)
    return flags


def epoch_length(plan: Plan, flags: dict[str, Any] | None = None) -> int:
    """Return the number of training batches of an epoch."""
    flags = plan["trainer"] if flags is None else flags
    limit = flags.get("overfit_batches") or flags.get("limit_train_batches", 1.0)
    if flags.get("fast_dev_run"):
        limit = int(flags["fast_dev_run"])
    return batches_of(plan["data"]["train"], limit)


def _validation_flags(r: random.Random, plan: Plan, flags: dict[str, Any]) -> None:
    length = epoch_length(plan, flags)
    if not plan["data"]["val"]["loaders"] or not _reads_val(flags):
        return
    if r.random() < 0.35:
        flags["val_check_interval"] = r.randint(1, max(1, length))
        if r.random() < 0.35 and _sized(plan["data"]["train"]):
            flags["val_check_interval"] = r.choice([0.25, 0.3, 0.5, 0.7])
        elif r.random() < 0.3:
            flags["val_check_interval"] = r.randint(1, length + 3)
            flags["check_val_every_n_epoch"] = None
    elif r.random() < 0.15 and "reload_dataloaders_every_n_epochs" not in flags:
        flags["check_val_every_n_epoch"] = r.randint(1, 3)


def _window_flags(r: random.Random, plan: Plan, flags: dict[str, Any]) -> None:
    length = epoch_length(plan, flags)
    divisors = [n for n in range(1, length + 1) if length % n == 0]
    if r.random() < 0.3 and divisors:
        flags["accumulate_grad_batches"] = r.choice(divisors)
    if r.random() < 0.25:
        flags["gradient_clip_val"] = r.choice([0.05, 0.5, 1])
        if r.random() < 0.6:
            flags["gradient_clip_algorithm"] = r.choice(["norm", "value"])


# ---- module ----


def _module(r: random.Random, plan: Plan) -> dict[str, Any]:
    several = {
        stage: len(plan["data"][stage]["loaders"]) > 1
        and plan["data"][stage]["mode"] in ("list", "sequential")
        for stage in ("val", "test", "predict")
    }
    share = r.choice([0.0, 0.1, 0.5, 1.0])
    hooks = STEP_HOOKS + FIT_HOOKS + MODULE_ONLY + BOTH + EVALUATION_HOOKS
    stepping = r.sample(CLOSURE_HOOKS, r.randint(1, 3))
    chosen = stepping if plan["mode"] == "closure" else []
    automatic = plan["mode"] in ("automatic", "closure")
    returns = ["tensor", "tensor", "mapping"]
    if not automatic:
        returns.append("nothing")
    elif "gradient_clip_val" not in plan["trainer"]:
        returns.append("some None")  # torch cannot clip where there is no gradient
    windowed = plan["trainer"].get("accumulate_grad_batches", 1) > 1
    module = {
        "hooks": [hook for hook in hooks if r.random() < share] + chosen,
        "returns": r.choice(returns),
        "arguments": {
            "training_step": r.choice([1, 2]),
            **{
                step: 3 if several[stage] else r.choice([1, 2, 3])
                for stage, step in (
                    ("val", "validation_step"),
                    ("test", "test_step"),
                    ("predict", "predict_step"),
                )
            },
        },
        "dropout": r.random() < 0.3
        and "reload_dataloaders_every_n_epochs" not in plan["trainer"],
        "hparams": r.random() < 0.3,
        "skip_at": r.randint(1, 4) if r.random() < 0.08 and not windowed else None,
        "several": several,
    }
    module["logs"] = _logs(r, plan, 0.1)
    if plan["mode"] == "manual 2":
        _log_by_step_only(module["logs"])
    if module["skip_at"] is not None:
        # What a refused batch logs is lost there, and reported here.
        module["logs"].pop("on_train_batch_start", None)
    if plan["mode"] == "closure":
        for hook in chosen:
            module["logs"][hook] = [_log(r, hook, batch=True)]
    module["logs"]["validation_step"].append({"name": "val_loss", "value": "loss"})
    module["logs"]["training_step"].append(
        {"name": "train_loss", "value": "loss", "on_step": True, "on_epoch": True}
    )
    if r.random() < 0.15:
        for hook in ("training_step", "on_train_epoch_end"):
            module["logs"].setdefault(hook, []).append(
                {"name": "shared", "value": "step"}
            )
    return module


def _log_by_step_only(logs: dict[str, Any]) -> None:
    """Keep hooks that run twice a batch out of epochs: Lightning forgets some values."""
    for hook in TWICE_A_BATCH:
        for entry in logs.get(hook, []):
            entry.update(on_step=True, on_epoch=False)


def _logs(r: random.Random, plan: Plan, likely: float) -> dict[str, Any]:
    logs: dict[str, Any] = {"training_step": [], "validation_step": [], "test_step": []}
    for hook in PER_STEP_LOGGING:
        while r.random() < (0.5 if hook == "training_step" else likely):
            logs.setdefault(hook, []).append(_log(r, hook, batch=True))
    for hook in ("validation_step", "test_step"):
        while r.random() < 0.6:
            logs[hook].append(_log(r, hook, batch=True))
    for hook in PER_EPOCH_LOGGING + EVALUATION_LOGGING:
        if r.random() < likely:
            logs.setdefault(hook, []).append(_log(r, hook, batch="batch" in hook))
    if r.random() < 0.08:
        hook = r.choice(["training_step", "validation_step", "on_train_epoch_end"])
        logs.setdefault(hook, []).append({"name": "step", "value": "step"})
    return logs


def _log(r: random.Random, hook: str, batch: bool) -> dict[str, Any]:
    values = ["number", "count", "step", "epoch"]
    if hook in ("training_step", "validation_step", "test_step"):
        values += ["loss", "batch", "one element", "loss", "batch"]
    entry: dict[str, Any] = {
        "name": f"{hook}_{r.randint(0, 10**6)}",
        "value": r.choice(values),
    }
    if batch:
        step, epoch = r.choice(
            [(None, None), (True, True), (True, False), (False, True), (None, True)]
        )
        entry.update(on_step=step, on_epoch=epoch)
        if r.random() < 0.2:
            entry["batch_size"] = r.randint(1, 4)
        if r.random() < 0.2:
            entry["add_dataloader_idx"] = False
            entry["own name"] = True
    if r.random() < 0.3:
        entry["prog_bar"] = True
    if r.random() < 0.2:
        entry["logger"] = False
    if r.random() < 0.4:
        entry["reduce_fx"] = r.choice(["mean", "sum", "min", "max"])
    return {key: value for key, value in entry.items() if value is not None}


# ---- optimizer ----


def _optimizer(r: random.Random, plan: Plan) -> dict[str, Any]:
    kind = r.choice(["SGD", "SGD", "momentum", "Adam", "AdamW"])
    if plan["mode"].startswith("manual") or "gradient_clip_val" in plan["trainer"]:
        kind = r.choice(["SGD", "Adam"])
    found = {"kind": kind, "form": "bare", "schedulers": []}
    if r.random() < 0.6:
        found["form"] = r.choice(["dict", "lists", "dict in dict"])
        number = r.choice([1, 1, 2]) if found["form"] == "lists" else 1
        found["schedulers"] = [_scheduler(r, plan) for _ in range(number)]
        if found["form"] == "dict":
            # Given without a configuration, it steps by epoch.
            found["schedulers"][0].update(interval="epoch", frequency=1)
            if found["schedulers"][0]["kind"] == "plateau":
                found["form"] = "dict in dict"
    elif r.random() < 0.3:
        found["form"] = r.choice(["list", "dict"])
    return found


def _scheduler(r: random.Random, plan: Plan) -> dict[str, Any]:
    kind = r.choice(["step", "lambda", "exponential", "plateau"])
    interval = r.choice(["epoch", "step"])
    config = {
        "kind": kind,
        "interval": interval,
        "frequency": r.choice([1, 1, 2]) if interval == "epoch" else 1,
    }
    if kind == "plateau":
        config["monitor"] = r.choice(_monitors(plan))
        config["strict"] = r.random() < 0.5
    return config


def _monitors(plan: Plan) -> list[str]:
    monitors = ["train_loss", "train_loss_step", "train_loss_epoch"]
    if plan["data"]["val"]["loaders"] and _reads_val(plan["trainer"]):
        suffix = "/dataloader_idx_0" if plan_several(plan) else ""
        monitors += [f"val_loss{suffix}"] * 3
    return monitors


def _reads_val(flags: dict[str, Any]) -> bool:
    return bool(flags.get("limit_val_batches", 1))


def plan_several(plan: Plan) -> bool:
    """Tell whether validation tells its loaders apart."""
    val = plan["data"]["val"]
    return len(val["loaders"]) > 1 and val["mode"] in ("list", "sequential")


# ---- callbacks ----


def _callbacks(r: random.Random, plan: Plan) -> list[dict[str, Any]]:
    share = r.choice([0.0, 0.3, 1.0])
    hooks = STEP_HOOKS + FIT_HOOKS + BOTH + EVALUATION_HOOKS + CALLBACK_ONLY
    drawn: list[dict[str, Any]] = [
        {
            "kind": "recorder",
            "hooks": [hook for hook in hooks if r.random() < share],
            "looks": r.random() < 0.6,
            "logs": _logs(r, plan, 0.05) if r.random() < 0.3 else {},
        }
    ]
    unlogged = ["training_step", "validation_step", "test_step"]
    unlogged.append("configure_gradient_clipping")
    if plan["mode"] == "manual 2":
        _log_by_step_only(drawn[0]["logs"])
    if plan["module"]["skip_at"] is not None:
        unlogged.append("on_train_batch_start")
    for hook in unlogged:
        drawn[0]["logs"].pop(hook, None)
    if r.random() < 0.2:
        hook = r.choice(
            [
                "on_train_batch_start",
                "on_train_batch_end",
                "on_train_epoch_end",
                "on_validation_end",
                "on_validation_epoch_end",
                "on_train_epoch_start",
            ]
        )
        drawn.append({"kind": "stop", "hook": hook, "at": r.randint(0, 8)})
    if r.random() < 0.15:
        drawn.append(_early_stopping(r, plan))
    if r.random() < 0.4:
        drawn.append(_checkpoint(r, plan))
    if r.random() < 0.1 and plan["logger"]:
        interval = r.choice([None, "step", "epoch"])
        drawn.append({"kind": "rates", "interval": interval})
    if r.random() < 0.1 and plan["mode"] in ("automatic", "closure"):
        length = epoch_length(plan)
        divisors = [n for n in range(1, length + 1) if length % n == 0]
        if divisors and "accumulate_grad_batches" not in plan["trainer"]:
            scheduling = {0: r.choice(divisors), 1: r.choice(divisors)}
            drawn.append({"kind": "accumulation", "scheduling": scheduling})
    return drawn


def _early_stopping(r: random.Random, plan: Plan) -> dict[str, Any]:
    return {
        "kind": "early stopping",
        "arguments": {
            "monitor": r.choice(_monitors(plan)),
            "patience": r.randint(0, 2),
            "mode": r.choice(["min", "max"]),
            "min_delta": r.choice([0.0, 0.05]),
            "check_on_train_epoch_end": r.choice([None, None, True, False]),
            "strict": False,
        },
    }


def _checkpoint(r: random.Random, plan: Plan) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "save_top_k": r.choice([1, 1, 2, -1, 0]),
        "save_last": None,
        "save_weights_only": r.random() < 0.2,
        "auto_insert_metric_name": r.random() < 0.7,
        "save_on_train_epoch_end": r.choice([None, None, True, False]),
        "mode": r.choice(["min", "max"]),
    }
    if r.random() < 0.3:
        # Two steps a batch pass over odd numbers, which Lightning then leaves out.
        by_batch = 2 if plan["mode"] == "manual 2" else 1
        arguments["every_n_train_steps"] = r.randint(1, 4) * by_batch
    elif r.random() < 0.3:
        arguments["every_n_epochs"] = r.randint(1, 3)
    if r.random() < 0.5 and arguments["save_top_k"] != 0:
        arguments["monitor"] = r.choice(_monitors(plan))
        if "every_n_train_steps" in arguments:
            # Lightning waits at an epoch's end even if no validation follows, and
            # never by hand.
            flags = plan["trainer"].keys()
            waits = {"accumulate_grad_batches", "val_check_interval"} & flags
            by_hand = plan["mode"].startswith("manual")
            arguments["monitor"] = None if by_hand or waits else "train_loss"
    if arguments.get("monitor") is None and arguments["save_top_k"] == 2:
        arguments["save_top_k"] = 1
    ranks_all = arguments.get("monitor") is None and arguments["save_top_k"] != 0
    if r.random() < 0.5 and ranks_all and "fast_dev_run" not in plan["trainer"]:
        arguments["save_last"] = True
    if r.random() < 0.4:
        arguments["filename"] = r.choice(
            ["{epoch}", "{step:03d}", "{epoch}-{train_loss:.2f}", "fixed"]
        )
    return {"kind": "checkpoint", "arguments": arguments, "folder": r.random() < 0.5}


# ---- phases ----


def _phases(r: random.Random, plan: Plan) -> list[dict[str, Any]]:
    phases: list[dict[str, Any]] = []
    others = [
        {"do": "test"},
        {"do": "predict"},
    ]
    if plan["data"]["val"]["loaders"]:
        others.append({"do": "validate"})
    if r.random() < 0.1:
        phases.append(r.choice(others))
    phases.append({"do": "fit"})
    phases += [dict(other) for other in r.sample(others, r.randint(0, len(others)))]
    kinds = [callback["kind"] for callback in plan["callbacks"]]
    if "checkpoint" in kinds and phases[0]["do"] == "fit" and r.random() < 0.5:
        # Lightning sets the callbacks back to the file's state, even to evaluate.
        hooks = set(plan["callbacks"][0]["hooks"])
        hooks -= {"on_load_checkpoint", "load_state_dict"}
        plan["callbacks"][0]["hooks"] = sorted(hooks)
        for phase in phases[1:]:
            phase["ckpt_path"] = "best"
    elif r.random() < 0.15 and "accumulation" not in kinds:
        # `test_second_fit_with_scheduled_accumulation`
        phases.append({"do": "fit"})
        _make_plain(plan["data"])  # Lightning opens the loader twice for epochs after 0
        plan["module"]["dropout"] = False
    if r.random() < 0.3 and _can_resume(plan):
        return _resumed(r, plan, phases)
    return phases


def _can_resume(plan: Plan) -> bool:
    flags, callbacks = plan["trainer"], plan["callbacks"]
    stops = any(callback["kind"] == "stop" for callback in callbacks)
    names = ("max_steps", "fast_dev_run", "reload_dataloaders_every_n_epochs")
    ends = stops or plan["module"]["skip_at"] is not None or epoch_length(plan) == 0
    return not ends and not any(name in flags for name in names)


def _resumed(
    r: random.Random, plan: Plan, phases: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return a fit, what was to follow it, and a fit of a new trainer that goes on.

    Lightning forgets random numbers and metrics, and repeats the sanity check; of an
    epoch whose end hook wrote the file it drops the schedulers and points still due.
    """
    _make_plain(plan["data"])
    plan["module"]["dropout"] = False
    plan["trainer"]["num_sanity_val_steps"] = 0
    epochs = plan["trainer"]["max_epochs"] = max(1, plan["trainer"]["max_epochs"])
    resume: dict[str, Any] = {"do": "resume", "max_epochs": epochs + r.randint(0, 2)}
    resume["from"] = r.choice(["end of fit", "end of epoch"])
    fit = {"do": "fit", "save_at_epoch": r.randint(0, epochs - 1)}
    plan["callbacks"][0]["looks"] = False
    for logs in (plan["module"]["logs"], plan["callbacks"][0]["logs"]):
        # The axis of the batches of evaluations goes on here, and starts anew there.
        for hook in [hook for hook in logs if "validation" in hook]:
            logs[hook] = [e for e in logs[hook] if not e.get("on_step")]
        # Metrics of the epochs before are still there here.
        for hook, entries in logs.items():
            logs[hook] = [e for e in entries if e["name"] != "step"]
    if resume["from"] == "end of epoch":
        resume["max_epochs"] = max(resume["max_epochs"], fit["save_at_epoch"] + 2)
        for logs in (plan["module"]["logs"], plan["callbacks"][0]["logs"]):
            logs.pop("on_train_start", None)
        if plan["trainer"].get("check_val_every_n_epoch"):
            # The fit begins in the file's epoch here, in the next one there: either
            # asks for validation's loaders if that epoch validates.
            del plan["trainer"]["check_val_every_n_epoch"]
    if "val_check_interval" in plan["trainer"]:
        # Would end the first fit, and so the file, inside an epoch.
        kept = [c for c in plan["callbacks"] if c["kind"] != "early stopping"]
        plan["callbacks"] = kept
    for callback in plan["callbacks"]:
        arguments = callback.get("arguments", {})
        # Lightning saves again at the first batch.
        arguments.pop("every_n_train_steps", None)
        stale = "check_val_every_n_epoch" in plan["trainer"]
        if "monitor" in arguments and (
            stale or arguments["monitor"] == "train_loss_epoch"
        ):
            # Of the epochs before, which Lightning has forgotten.
            arguments["monitor"] = arguments["monitor"] and "train_loss"
    for scheduler in plan["optimizer"]["schedulers"]:
        if scheduler["kind"] == "plateau":
            scheduler.update(kind="step")
            del scheduler["monitor"], scheduler["strict"]
    others = [phase for phase in phases if phase["do"] != "fit"]
    return [fit, *others[:1], resume]
