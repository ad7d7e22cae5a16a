"""The runtime's error family: one class per remedy.

Everything a user can cause derives from `LightgenRuntimeError`; command-line front ends
print those without a traceback. Errors of the user's own code pass through untouched.
"""


class LightgenRuntimeError(Exception):
    """Base of every error whose message alone tells a user what to do."""


class MisconfigurationException(LightgenRuntimeError):
    """An argument, a return value or a combination of settings is not accepted.

    Source: the name is Lightning's, so that `except` clauses written for it keep working.
    """


class UnknownArgumentError(LightgenRuntimeError, TypeError):
    """A function has no argument of that name."""


class MissingDependencyError(LightgenRuntimeError, ModuleNotFoundError):
    """A package that only this feature needs is not installed."""


class EmptyDataError(LightgenRuntimeError):
    """A loader or dataset that must yield batches yields none."""


class CheckpointNotFoundError(LightgenRuntimeError, FileNotFoundError):
    """No file at the checkpoint path, or no run holds the checkpoint asked for."""


class OutputExistsError(LightgenRuntimeError, FileExistsError):
    """Something is where a file was to be written, and nothing was overwritten."""


class RunInUseError(LightgenRuntimeError):
    """Another process trains in the folder of the run."""


class RunFolderError(LightgenRuntimeError, OSError):
    """The system refuses to make a folder for the run."""


class CheckpointWriteError(LightgenRuntimeError, OSError):
    """A checkpoint cannot be written; what was there before is intact.

    Args:
        path: Where to.
        cause: What the system said.
        remedy: What to do.
    """

    def __init__(
        self,
        path: object,
        cause: object,
        remedy: str = "Make room or grant access there, or choose another folder.",
    ) -> None:
        super().__init__(str(path), str(cause))
        self.path, self.cause, self.remedy = str(path), str(cause), remedy
        self.errno = getattr(cause, "errno", None)

    def __str__(self) -> str:
        return f"The checkpoint `{self.path}` cannot be written: {self.cause}. {self.remedy}"

    def as_warning(self) -> str:
        """Return what to say where the fit goes on all the same."""
        return (
            f"{self} The fit goes on, former checkpoints stay, and the next save tries "
            "again."
        )


class CheckpointFormatError(LightgenRuntimeError):
    """The file is truncated, damaged, unsafe or not a checkpoint at all."""


class CheckpointMismatchError(LightgenRuntimeError):
    """The checkpoint is sound but does not fit this module, optimizer or run."""


class NonFiniteLossError(LightgenRuntimeError):
    """The loss became NaN or infinite."""


class TunerExit(Exception):
    """Ends a run that was there for tuning only. Not an error: the trainer takes it."""


class SIGTERMException(SystemExit):
    """The process was asked to terminate; ends a fit after the running batch.

    The exit code is the one by which shells and schedulers know that signal.
    Compat: Lightning's exits with 0.

    Args:
        signal: Number of the signal that asked; by default SIGTERM's.
    """

    def __init__(self, signal: int = 15) -> None:
        super().__init__(128 + signal)
        self.signal = signal

    def __reduce__(self) -> tuple[type, tuple[int]]:
        """Go from process to process as what it is."""
        return type(self), (self.signal,)


class OtherProcessError(SystemExit):
    """Another process of the run has failed, or goes another way; this one ends with it.

    Nothing in this process is wrong, so no traceback is shown of it.

    Args:
        message: Which process, and what it has done.
        code: This process's exit code.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(code)
        self.message = message

    def __str__(self) -> str:
        return self.message


def system_error_behind(error: BaseException) -> OSError | None:
    """Return what the system said first; None if it was not the system.

    `torch.save` ends its archive also after the disk refused a part of it, and raises an
    error of its own about that.
    """
    found: BaseException | None = error
    while found is not None and not isinstance(found, OSError):
        found = found.__cause__ or found.__context__
    return found


def add_note(error: BaseException, note: str) -> None:
    """Add to what is shown of an error, where Python can: from 3.11 on."""
    if hasattr(error, "add_note"):
        error.add_note(note)
    else:  # Python 3.10 shows no notes; keep it where debuggers look
        error.__notes__ = [*getattr(error, "__notes__", []), note]  # type: ignore[attr-defined]
