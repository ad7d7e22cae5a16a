"""Reading what users write in options, with errors that point at the column."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from lightgen.errors import OptimizerOptionError, UnknownOptimizerError, did_you_mean


@dataclass(frozen=True)
class Piece:
    """A part of an option's text that remembers where it stands.

    Attributes:
        text: The part.
        whole: The option's whole text.
        start: Where the part begins in it, from 0.
        option: The option, for messages.
    """

    text: str
    whole: str
    start: int
    option: str

    @classmethod
    def of(cls, text: str, option: str) -> Piece:
        """Return a whole option as a piece."""
        return cls(text, text, 0, option)

    def part(self, start: int, end: int | None = None) -> Piece:
        """Return a part of this piece without white space around it."""
        text = self.text[start:end]
        lead = len(text) - len(text.lstrip())
        return Piece(text.strip(), self.whole, self.start + start + lead, self.option)

    def split(self, separator: str) -> Iterator[Piece]:
        """Yield what stands between matches of a regular expression."""
        start = 0
        for match in re.finditer(separator, self.text):
            yield self.part(start, match.start())
            start = match.end()
        yield self.part(start)

    def partition(self, mark: str) -> tuple[Piece, Piece | None]:
        """Return what stands before and behind the first `mark`; None without one."""
        at = self.text.find(mark)
        if at < 0:
            return self.part(0), None
        return self.part(0, at), self.part(at + len(mark))

    @property
    def where(self) -> str:
        """The option and the column, with the text and a mark below it."""
        lead = " " * 12
        shown = self.whole.replace("\n", " ").replace("\t", " ")
        mark = "^" * max(1, len(self.text))
        return (
            f"{self.option}, column {self.start + 1}\n"
            f"{lead}{shown}\n{lead}{' ' * self.start}{mark}"
        )

    def error(
        self, given: str, accepted: str = "", todo: str = ""
    ) -> OptimizerOptionError:
        """Return the error that something is wrong here."""
        return OptimizerOptionError(
            given, where=self.where, accepted=accepted, todo=todo
        )

    def unknown(
        self, denial: str, options: list[str], todo: str
    ) -> UnknownOptimizerError:
        """Return the error that no such name is known here."""
        return UnknownOptimizerError(
            f"{denial} `{self.text}`",
            where=self.where,
            accepted=", ".join(options),
            todo=did_you_mean(self.text, options, todo),
        )
