"""The command-line program: its verbs, and the exit code of each error.

0 done, 1 the system refused, 2 usage, 3 conflict, 4 untrusted template or project, 5
verification failed or `doctor` or `ckpt verify` found a problem, 6 out of date
(`--check`) or, by `ckpt diff`, different. An error that
is neither of our family nor the system's is a defect of ours and keeps its traceback.
"""

from __future__ import annotations

import sys
from typing import Annotated, NoReturn

import typer

from lightgen import __version__, console
from lightgen.commands import (
    adopt,
    ckpt,
    cluster,
    doctor,
    export,
    history,
    lr,
    new,
    optimizers,
    regen,
    run,
    status,
    templates,
)
from lightgen.errors import (
    ConflictError,
    LightgenError,
    OutOfDateError,
    UntrustedProjectError,
    UntrustedTemplateError,
    UsageError,
    VerificationError,
    WriteError,
)
from lightgen.misuse import PARSER_ERROR, as_usage_error, is_call_for_help

EXIT_CODES: dict[type[LightgenError], int] = {
    WriteError: 1,
    UsageError: 2,
    ConflictError: 3,
    UntrustedTemplateError: 4,
    UntrustedProjectError: 4,
    VerificationError: 5,
    OutOfDateError: 6,
}

# Without rich, `--help` is ready in half the time.
app = typer.Typer(
    name="lightgen",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
_ckpt_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
_templates_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


def _print_version(wanted: bool) -> None:
    if wanted:
        console.put(f"lightgen {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version and stop.",
            callback=_print_version,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Write PyTorch training projects, and run them."""


_regen_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
_regen_app.command("optimizer")(regen.regen_optimizer)
app.command("new")(new.new)
app.add_typer(_regen_app, name="regen", help="Write a block anew, keeping edits.")
_cluster_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
_cluster_app.command("slurm")(cluster.slurm)
_cluster_app.command("kubernetes")(cluster.kubernetes)
_cluster_app.command("torchrun")(cluster.torchrun)
app.add_typer(_cluster_app, name="cluster", help="Write job files, keeping edits.")
app.command("adopt")(adopt.adopt_module)
app.command("lr", context_settings=run.PASS_THROUGH)(lr.lr)
app.command("status")(status.status)
app.command("doctor")(doctor.doctor)
app.command("undo")(history.undo)
app.command("redo")(history.redo)
app.command("optimizers")(optimizers.optimizers)
_ckpt_app.command("inspect")(ckpt.inspect)
_ckpt_app.command("verify")(ckpt.verify)
_ckpt_app.command("diff")(ckpt.diff)
_ckpt_app.command("convert")(ckpt.convert)
app.add_typer(_ckpt_app, name="ckpt", help="Look at checkpoints; convert them.")
_templates_app.command("list")(templates.list_templates)
_templates_app.command("show")(templates.show_template)
_templates_app.command("export")(templates.export_template)
app.add_typer(_templates_app, name="templates", help="List, show, export templates.")
for _verb, (_subcommand, _help) in run.VERBS.items():
    app.command(
        _verb, help=_help, epilog=run.EPILOG, context_settings=run.PASS_THROUGH
    )(run.verb_command(_subcommand))
app.command("export", epilog=run.EPILOG, context_settings=run.PASS_THROUGH)(
    export.export
)


def main() -> None:
    """Run the program with the process's arguments, and exit."""
    console.spell_out_what_cannot_be_encoded()
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except LightgenError as error:
        _exit(error)
    except PARSER_ERROR as error:
        if is_call_for_help(error):
            console.say(str(error))
            sys.exit(exit_code(UsageError("")))
        _exit(as_usage_error(error, sys.argv[1:]))
    except typer.Abort:  # the end of the input, at a question
        console.say("Aborted!")
        sys.exit(1)
    except OSError as error:
        _exit(_refused(error))


def _exit(error: LightgenError) -> NoReturn:
    console.fail(str(error))
    sys.exit(exit_code(error))


def _refused(error: OSError) -> WriteError:
    return WriteError(
        f"the operating system refused: {error.strerror or error}",
        where=str(error.filename or ""),
        accepted="files and folders that you may read and write",
        todo="look at the permissions and the free space there, then try again",
    )


def exit_code(error: LightgenError) -> int:
    """Return the exit code of an error: that of the nearest class listed."""
    return next(EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES)
