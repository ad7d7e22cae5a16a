"""The command line of a generated project: run folders, results, exit codes.

Adds to LightningCLI what a project wants around it: every fit gets `runs/<n>/`,
`--ckpt_path best|last` finds its checkpoint, results are printed and kept, and errors
end as one line and an exit code.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from lightgen_runtime.cli.argument_parser import LightningArgumentParser
from lightgen_runtime.cli.complaint import complain, report_exception
from lightgen_runtime.cli.exporting import (
    SUFFIXES,
    ExportCommand,
    ExportFormat,
    export_model,
)
from lightgen_runtime.cli.lightning_cli import LightningCLI
from lightgen_runtime.cli.predictions import write_predictions
from lightgen_runtime.cli.report import (
    Status,
    Summary,
    checkpoint_paths,
    metric_values,
    result_table,
    shown_path,
)
from lightgen_runtime.cli.resume import (
    Resumption,
    choose_resumption,
    hold,
    mark_with_job,
    release,
    run_of_job,
)
from lightgen_runtime.cli.runs import (
    CONFIG,
    RUNS,
    SUMMARY,
    Run,
    claim_run,
    find_checkpoint,
    newest_weights,
    run_of,
    write_json,
)
from lightgen_runtime.cli.warning_lines import warnings_as_lines
from lightgen_runtime.core.datamodule import LightningDataModule
from lightgen_runtime.core.loading import take_weights
from lightgen_runtime.core.module import LightningModule
from lightgen_runtime.io.output_check import check_output
from lightgen_runtime.loggers import CSVLogger
from lightgen_runtime.trainer.trainer import Trainer
from lightgen_runtime.utilities.atomic_write import atomic_write
from lightgen_runtime.utilities.exceptions import (
    CheckpointWriteError,
    LightgenRuntimeError,
    MisconfigurationException,
    NonFiniteLossError,
    OutputExistsError,
    RunFolderError,
    RunInUseError,
    SIGTERMException,
)
from lightgen_runtime.utilities.rank_zero import rank_zero_only
from lightgen_runtime.utilities.refused_writes import RefusedWrites

FAILED = 1
USAGE = 2
IN_THE_WAY = 3
INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it

# `lightgen train` sets it to how it was called.
TYPED_COMMAND = "LIGHTGEN_COMMAND"

# Not part of what a run is: how this one command was called.
_CALL_ONLY = ("config", "json", "ckpt_path", "resume", "force")


class ProjectCLI(LightningCLI):
    """Run the subcommands of a project from its root folder.

    `fit` writes `runs/<n>/` with the resolved config, metrics, checkpoints and a
    summary. `validate`, `test` and `predict` use the best checkpoint of the newest run
    unless `--ckpt_path` names another, and keep their results in the folder of the run
    that wrote it, as does `export`; for a file from elsewhere, in a new folder `runs/<n>/`.
    `fast_dev_run` leaves no folder.

    Results go to stdout, ending with one JSON object where `--json` is given; anything
    said on the way goes to stderr.

    Args:
        *args: As for LightningCLI.
        **kwargs: As for LightningCLI. By default there are no options for optimizers,
            hyperparameters are saved as `__init__` gets them, and the config is saved
            in the run's folder only.

    Raises:
        SystemExit: With 2 if the config, the data or a checkpoint cannot be used, with 3
            if something is in the way, with 1 if the training itself or a write failed,
            with 130 on Ctrl-C. Errors of the
            project's own code propagate as they are.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("save_config_callback", None)
        # The optimizer of a project is in its code, where `lightgen regen` keeps it.
        kwargs.setdefault("auto_configure_optimizers", False)
        # Its arguments are plain values, which need no parser to be built from.
        kwargs.setdefault("load_from_checkpoint_support", False)
        self._run: Run | None = None  # claimed by this command
        self._begun: Run | None = None  # by an earlier start of it
        self._results: Path | None = None  # the folder that results go to
        self._predictions: Path | None = None
        self._exported: Path | None = None
        self._last_checkpoint: str | None = None
        self._resumption: Resumption | None = None
        self._weights: Path | None = None  # to begin with
        self._held: int | None = None  # the run's folder
        self._json_line = ""  # written last of all
        self._refused_config = RefusedWrites()
        try:
            with warnings_as_lines():
                super().__init__(*args, **kwargs)
        except LightgenRuntimeError as error:
            complain(str(error))
            if not isinstance(error, NonFiniteLossError):  # which says so itself
                self._say_what_is_kept(resumable=False)
            sys.exit(_exit_code(error))
        except KeyboardInterrupt:
            # The terminal has echoed ^C in the middle of a line.
            _say("\nInterrupted.")
            self._say_what_is_kept(resumable=True)
            sys.exit(INTERRUPTED)
        except SIGTERMException:
            _say("Interrupted.")
            self._say_what_is_kept(resumable=True)
            raise
        except Exception as error:
            report_exception(error)
            raise
        finally:
            release(self._held)
            _show(self._json_line)

    # --- the parser

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Return an empty parser that calls the program by its bare command."""
        kwargs.setdefault("prog", shlex.join(_program()))
        return super().init_parser(**kwargs)

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return each subcommand and the arguments of its method not to expose."""
        own = {"verbose", "return_predictions"}
        known = {name: skip | own for name, skip in LightningCLI.subcommands().items()}
        return {**known, "export": set()}

    def _trainer_type(self) -> type[Trainer]:
        return type("ProjectTrainer", (ExportCommand, super()._trainer_type()), {})

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the arguments that belong to no class."""
        super().add_default_arguments_to_parser(parser)
        parser.add_argument(
            "--json",
            action="store_true",
            help="End stdout with one line that is a JSON object with the results.",
        )

    def setup_parser(self, *args: Any, **kwargs: Any) -> None:
        """Build `self.parser`; only a fit can be resumed, and only an export forced."""
        super().setup_parser(*args, **kwargs)
        if "export" in self._subcommand_parsers:
            self._parser("export").add_argument(
                "--force",
                action="store_true",
                help="Replace a file that is there; never a run's checkpoint.",
            )
        if "fit" in self._subcommand_parsers:
            self._parser("fit").add_argument(
                "--resume",
                metavar="auto|N|weights",
                type=str,
                default=None,
                help="Go on in the folder of the newest run that is not over (a new one "
                "if there is none) or of run N; or begin a new run with the weights of "
                "`--ckpt_path`, by default of the newest run.",
            )

    # --- the checkpoint to start from

    def _choose_resumption(self) -> None:
        """Turn `--resume`, or the new start of a job, into a checkpoint.

        Options say where a run begins; a job that is started again goes on with it.
        """
        config = self._own_config()
        wanted, given = config.get("resume"), config.get("ckpt_path")
        if _writes() and not self._is_dev_run():
            self._begun = run_of_job()
        if self._begun is not None:
            newest = self._begun.newest_sound(resumable=True)
            if newest is not None:
                self._resumption = Resumption.of(self._begun, newest)
                return
        if wanted is None:
            return
        if wanted == "weights":
            self._weights = (
                find_checkpoint(given, sound=True) if given else newest_weights()
            )
            config["ckpt_path"] = None
            _say(f"fit with the weights of {shown_path(self._weights)}")
        elif given is not None:
            raise MisconfigurationException(
                f"`--resume {wanted}` and `--ckpt_path {given}` both say where to go on "
                "from. Keep one."
            )
        else:
            self._resumption = choose_resumption(wanted)
            if self._resumption is None:
                _say("nothing to go on with: this is a new run")

    def _take_checkpoint_hparams(self) -> None:
        if self.subcommand == "fit":
            self._choose_resumption()
        if self._resumption is not None:
            config = self._own_config()
            began_from_file = config["ckpt_path"] is not None
            config["ckpt_path"] = str(self._resumption.checkpoint)
            if not began_from_file or config["resume"] is not None:
                # The settings of now count; what is another one is told.
                return
        elif self.subcommand is not None:
            config = self._own_config()
            given = config.get("ckpt_path")
            if given is None and self.subcommand != "fit" and not self._is_dev_run():
                given = "best"
            if given is not None:
                config["ckpt_path"] = self._chosen_checkpoint(given)
        super()._take_checkpoint_hparams()

    def _chosen_checkpoint(self, given: str) -> str:
        path = find_checkpoint(given, sound=True)
        _say(f"{self.subcommand} from {shown_path(path)}")
        run = run_of(path)
        keeps = run is not None and self.subcommand != "fit" and not self._is_dev_run()
        if run is not None and keeps and _writes():
            self._results = run.folder
        return str(path)

    def _checkpoint_hparams(self, path: Path) -> dict[str, Any]:
        """Return the checkpoint's hyperparameters that no option contradicts."""
        options = {
            token.partition("=")[0] for token in self._parser(self.subcommand).args
        }
        model = self._get(self.config, "model")
        taken = {
            name: value
            for name, value in super()._checkpoint_hparams(path).items()
            if f"--model.{name}" not in options
        }
        for name, value in taken.items():
            if model[name] != value:
                _say(
                    f"model.{name}: {value!r} from the checkpoint, not {model[name]!r}"
                )
        return taken

    # --- the run folder

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer; claim a run folder with it, unless the results have one.

        Nothing before this writes to the disk, so whatever is wrong with the config,
        the model or the datamodule leaves no trace.
        """
        if self.subcommand is None or self._is_dev_run():
            return super().instantiate_trainer(**kwargs)
        logger = kwargs.get("logger", self._get(self.config_init, "trainer")["logger"])
        wants_default = logger is None or logger is True
        if wants_default and self.subcommand != "fit":
            kwargs["logger"] = False  # the results are kept as one JSON file
        if not _writes():  # folders are named by the process that writes to them
            if wants_default and self.subcommand == "fit":
                kwargs["logger"] = CSVLogger(save_dir=str(RUNS), name="")
            return super().instantiate_trainer(**kwargs)
        if self._results is not None:
            return super().instantiate_trainer(**kwargs)
        resumption = self._resumption
        run = self._begun or claim_run() if resumption is None else resumption.run
        if wants_default and self.subcommand == "fit":
            number = str(run.number)
            kwargs["logger"] = CSVLogger(save_dir=str(RUNS), name="", version=number)
        if self._get(self.config_init, "trainer")["default_root_dir"] is None:
            kwargs.setdefault("default_root_dir", str(run.folder))
        try:
            trainer = super().instantiate_trainer(**kwargs)
            self._held = hold(run)
            if resumption is not None:
                self._tell_of(resumption)
                resumption.begin()
            elif self._begun is not None:
                _say(f"beginning run {run.number} anew: it had no checkpoint yet")
                run.forget_attempt()
            mark_with_job(run)
            self._write_config(run)
        except BaseException:
            run.discard_start()
            raise
        self._run = run
        self._results = run.folder
        _say(f"run {run.number}: {run.folder.as_posix()}")
        return trainer

    def _write_config(self, run: Run) -> None:
        """Keep the resolved config; what the disk refuses is tried again at the end."""
        path = run.folder / CONFIG
        with (
            self._refused_config.told(path, "It is tried again when the run ends."),
            atomic_write(path) as stream,
        ):
            stream.write(self._config_text().encode())

    def _tell_of(self, resumption: Resumption) -> None:
        run, path = resumption.run, shown_path(resumption.checkpoint)
        _say(f"going on with run {run.number} ({run.status}) from {path}")
        for line in resumption.differences(self._config_text()):
            _say(f"  {line}")

    def _config_text(self) -> str:
        config = self._own_config().clone()
        for key in _CALL_ONLY:
            config.pop(key, None)
        text: str = self._parser(self.subcommand).dump(
            config, skip_unset=False, skip_validation=True
        )
        return text

    def _is_dev_run(self) -> bool:
        return bool(self._get(self.config, "trainer")["fast_dev_run"])

    # --- the run and its result

    def fit(self, **kwargs: Any) -> None:
        """Train."""
        if self._weights is not None:
            take_weights(self.model, self._weights)
        self.trainer.fit(**kwargs)

    def validate(self, **kwargs: Any) -> None:
        """Evaluate on the validation data, without the Trainer's own table."""
        self.trainer.validate(verbose=False, **kwargs)

    def test(self, **kwargs: Any) -> None:
        """Evaluate on the test data, without the Trainer's own table."""
        self.trainer.test(verbose=False, **kwargs)

    def predict(self, **kwargs: Any) -> None:
        """Predict and keep the predictions in the run's folder."""
        self.trainer.predict(return_predictions=True, **kwargs)
        collected = self.trainer.predict_loop
        predictions = collected.of_all_processes(self.trainer.strategy)
        if predictions and self._results is not None:
            self._predictions = write_predictions(predictions, self._results)

    def export(
        self,
        *,
        model: LightningModule,
        format: ExportFormat,
        ckpt_path: str,
        output: str | None,
        datamodule: LightningDataModule | None = None,
    ) -> None:
        """Write the checkpoint's model to a file in the run's folder, or to `output`."""
        path = (self._results or Path()) / f"model{SUFFIXES[format]}"
        path = Path(output) if output is not None else path
        if _writes():
            check_output(path, force=self._own_config()["force"])
            export_model(model, datamodule, Path(ckpt_path), format, path)
        self._exported = path

    def _run_subcommand(self, subcommand: str) -> None:
        start_s = time.monotonic()
        try:
            super()._run_subcommand(subcommand)
        except BaseException as error:
            has_trained = self.trainer.global_step > 0
            if _is_bad_input(error) and self._run is not None and not has_trained:
                self._forget_start(self._run)
            interrupted = isinstance(error, KeyboardInterrupt | SIGTERMException)
            status: Status = "interrupted" if interrupted else "failed"
            self._conclude(status, time.monotonic() - start_s)
            if _is_bad_input(error) and self._resumption is not None:
                resumed = shown_path(self._resumption.checkpoint)
                if self._last_checkpoint == resumed:  # it has added nothing
                    self._resumption.take_back()
            raise
        self._conclude("completed", time.monotonic() - start_s)

    def _forget_start(self, run: Run) -> None:
        """Leave the disk as it was before bad input stopped the run at its start."""
        run.discard_start()
        if not run.folder.exists():
            _say(f"removed {run.folder.as_posix()}: nothing had been done yet")
            self._run = None
            self._results = None

    def _conclude(self, status: Status, seconds: float) -> None:
        """Keep and print the result, whatever it is."""
        if self._resumption is not None:
            seconds += self._resumption.seconds
        summary = self._summary(status, seconds)
        self._last_checkpoint = summary.last_checkpoint
        resumption = self._resumption
        if resumption and resumption.has_added_nothing(summary.steps):
            resumption.take_back()
            _say("nothing left to train: raise --trainer.max_epochs to go on")
        elif self._run is not None:
            if self._refused_config.cause is not None:
                self._write_config(self._run)
            then = f"Run {self._run.number} will look as if it had been killed."
            _write_result(self._run.folder / SUMMARY, summary, then)
        if (
            self._results is not None
            and self.subcommand != "fit"
            and status == "completed"
        ):
            path = self._results / f"{self.subcommand}.json"
            _write_result(path, summary, "The result is shown and not kept.")
        if status == "completed":
            _show(f"{result_table(summary)}\n")
        if self._own_config()["json"]:
            self._json_line = f"{json.dumps(summary.as_json(), allow_nan=False)}\n"

    def _summary(self, status: Status, seconds: float) -> Summary:
        best, last = None, None
        if self.subcommand == "fit":
            best, last = checkpoint_paths(self.trainer)
        return Summary(
            command=str(self.subcommand),
            run=shown_path(self._results),
            status=status,
            metrics=metric_values(self.trainer),
            ckpt_path=shown_path(self._own_config().get("ckpt_path")),
            best_checkpoint=best,
            last_checkpoint=last,
            predictions=shown_path(self._predictions),
            exported=shown_path(self._exported),
            seconds=round(seconds, 3),
            epochs=self.trainer.current_epoch,
            steps=self.trainer.global_step,
        )

    def _say_what_is_kept(self, *, resumable: bool) -> None:
        """After a fit that did not reach its end: what is left and how to go on."""
        if self._run is None or self.subcommand != "fit":
            return
        if self._last_checkpoint is None:
            _say("No checkpoint had been written yet.")
            return
        # The Trainer has told of the state that it saved.
        if self._last_checkpoint != shown_path(self.trainer.interrupted_path):
            _say(f"kept: {self._last_checkpoint}")
        if resumable:
            _say(f"resume: {_resuming_command(self._parser('fit').args)}")


def _write_result(path: Path, summary: Summary, then: str) -> None:
    with RefusedWrites().told(path, then):
        write_json(path, summary.as_json())


def _exit_code(error: LightgenRuntimeError) -> int:
    if isinstance(error, OutputExistsError | RunInUseError):
        return IN_THE_WAY
    failures = NonFiniteLossError | CheckpointWriteError | RunFolderError
    return FAILED if isinstance(error, failures) else USAGE


def _is_bad_input(error: BaseException) -> bool:
    """Tell what the user has to give differently from what went wrong on the way."""
    ours = isinstance(error, LightgenRuntimeError)
    return ours and not isinstance(error, NonFiniteLossError)


def _resuming_command(args: list[str]) -> str:
    """Return the command that this process was started by, but for where it begins."""
    typed = os.environ.get(TYPED_COMMAND)
    start = ("--ckpt_path", "--ckpt", "--resume")
    words = shlex.split(typed) if typed else [*_program(), "fit", *args]
    kept = [
        word
        for word, previous in zip(words, ["", *words], strict=False)
        if word.partition("=")[0] not in start and previous not in start
    ]
    path = "" if typed else _search_path()
    return f"{path}{shlex.join(kept)} --resume auto"


def _search_path() -> str:
    """Return the setting of PYTHONPATH that this process found its package by."""
    first = os.environ.get("PYTHONPATH", "").split(os.pathsep)[0]
    main = getattr(sys.modules["__main__"], "__file__", None)
    if (
        not first
        or main is None
        or not Path(main).is_relative_to(Path(first).resolve())
    ):
        return ""
    return f"PYTHONPATH={shlex.quote(os.path.relpath(first))} "


def _program() -> list[str]:
    """Return how this process was started, as a user would type it."""
    main = getattr(sys.modules["__main__"], "__spec__", None)
    if main is None:
        return ["python", sys.argv[0]]
    return ["python", "-m", main.name.removesuffix(".__main__")]


def _writes() -> bool:
    """Tell whether this is the one of several processes that writes and talks."""
    return rank_zero_only.rank == 0


def _say(message: str) -> None:
    if _writes():
        sys.stderr.write(f"{message}\n")


def _show(result: str) -> None:
    if _writes():
        sys.stdout.write(result)
        sys.stdout.flush()
