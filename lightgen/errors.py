"""The error family of the command line: one class per remedy.

A message has up to four parts: what was given, where it came from, what is accepted and
what to do next. Which exit code a class gets is decided in `lightgen.cli` alone.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LightgenError(Exception):
    """Base of every error whose message alone tells a user what to do.

    Args:
        given: What was found, values by repr or in backticks.
        where: The argument, flag, file or line it came from.
        accepted: What would have been right.
        todo: The next step, preferably a command.
    """

    def __init__(
        self, given: str, *, where: str = "", accepted: str = "", todo: str = ""
    ) -> None:
        super().__init__(given)
        self.given = given
        self.where = where
        self.accepted = accepted
        self.todo = todo

    def __str__(self) -> str:
        """Render one line for each part that is present."""
        lines = [self.given]
        parts = (
            ("where", self.where),
            ("accepted", self.accepted),
            ("next", self.todo),
        )
        for label, text in parts:
            if text:
                lines.append(f"  {label + ':':<9} {text}")
        return "\n".join(lines)


class UsageError(LightgenError):
    """The command line asks for something that cannot be done as written."""


class InvalidNameError(UsageError):
    """The project name cannot be a package of its own."""


class UnknownTemplateError(UsageError):
    """No bundled template, folder or repository answers to the reference."""


class UnknownOptionError(UsageError):
    """A `--data` key is no question of the template."""


class InvalidAnswerError(UsageError):
    """An answer has the wrong type, is no choice, or fails the template's own check."""


class TemplateFormatError(UsageError):
    """The template itself is broken; only its author can repair it."""


class UnknownOptimizerError(UsageError):
    """The catalogue has no optimizer, scheduler or argument of that name."""


class OptimizerOptionError(UsageError):
    """An optimizer or schedule option cannot be read, or cannot work as written."""


class JobOptionError(UsageError):
    """An option of a job file is nothing that the scheduler would take."""


class BlockNotFoundError(UsageError):
    """The file has no block that can be regenerated as asked."""


class AdoptionError(UsageError):
    """A hand-written block does something that no options can say."""


class ProjectNotFoundError(UsageError):
    """No generated project encloses the folder."""


class ProjectStateError(UsageError):
    """The project's own records, or the files they rely on, cannot be used."""


class ConflictError(LightgenError):
    """Something of the user's is in the way, and nothing was overwritten."""


class BlockConflictError(ConflictError):
    """You and the generator changed the same part of a block."""


class OutOfDateError(LightgenError):
    """`--check` found something that a command would change."""


class UntrustedTemplateError(LightgenError):
    """The template wants to run code of its own."""


class UntrustedProjectError(LightgenError):
    """Another user's project or journal would decide what this user's command does."""


class VerificationError(LightgenError):
    """What the template produced is not fit to be written."""


class UnsoundError(VerificationError):
    """`doctor` found a problem."""


class WriteError(LightgenError):
    """The operating system refused to read or write; the project is as it was."""


def nearest(name: str, options: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Find the option that `name` is most likely a slip of the pen for.

    Args:
        name: What was given.
        options: What is accepted.
        cutoff: How similar the two must be, from 0 to 1.

    Returns:
        The closest option, or None when nothing is close.
    """
    lowered = {option.lower(): option for option in options}
    matches = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=cutoff)
    return lowered[matches[0]] if matches else None


def did_you_mean(name: str, options: Iterable[str], otherwise: str = "") -> str:
    """Return the question whether the nearest option was meant, if one is near."""
    near = nearest(name, options)
    return f"did you mean `{near}`?" if near else otherwise


def listing(names: Iterable[str]) -> str:
    """Join names in backticks, or say that there are none."""
    return ", ".join(f"`{name}`" for name in names) or "none"
