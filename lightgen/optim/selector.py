"""The language that picks parameters: its grammar; what it picks is decided in a run.

    selector = term { "," term }           picked by any, and by no term with "!"
    term     = [ "!" ] ( PATH | "type:" CLASS | "ndim" OP NUMBER )

A path names a module or a parameter and may hold `*`: `backbone`, `blocks.*.attention`.
"""

from __future__ import annotations

import re

from lightgen.optim.text import Piece

_TERM = re.compile(
    r"!?(?:type:[A-Za-z_]\w*|ndim\s*(?:==|>=|<=|<|>)\s*\d+|[\w*]+(?:\.[\w*]+)*)"
)


def check_selector(piece: Piece) -> None:
    """Check the grammar of a selector.

    Raises:
        OptimizerOptionError: It breaks it.
    """
    for term in piece.split(","):
        if not _TERM.fullmatch(term.text):
            raise term.error(
                f"`{term.text}` selects nothing that can be read",
                accepted="a module or parameter such as backbone or blocks.*.bias, "
                "type:Linear, or ndim>=2; with ! before it, all but that",
            )


def is_path(selector: str) -> bool:
    """Tell whether a selector is the plain path of one module."""
    return re.fullmatch(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", selector) is not None
