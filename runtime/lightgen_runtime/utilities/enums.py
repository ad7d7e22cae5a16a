"""Names with a fixed set of values, which are strings too."""

from __future__ import annotations

from enum import Enum

from typing_extensions import Self


class LightningEnum(str, Enum):
    """An enumeration whose members are their values: `Member == "value"`.

    Compat: `str` and f-strings give the value; in Lightning, `Class.MEMBER`.
    """

    # What is equal must have one hash; Enum's own is that of the member's name.
    __hash__ = str.__hash__
    __str__ = str.__str__

    def __format__(self, format_spec: str) -> str:
        """Format the value."""
        return format(self.value, format_spec)

    @classmethod
    def from_str(cls, value: str, source: str = "key") -> Self:
        """Return the member of this name or value, in capitals or not.

        Args:
            value: The name or value.
            source: "key" for the name, "value" for the value, "any" for either.

        Raises:
            ValueError: There is none.
        """
        for member in cls:
            keys = {"key": [member.name], "value": [member.value]}
            known = keys.get(source, [member.name, member.value])
            if value.lower() in [key.lower() for key in known]:
                return member
        accepted = ", ".join(f"{member.name} ({member.value!r})" for member in cls)
        raise ValueError(f"{value!r} is no {cls.__name__}; accepted are {accepted}")


class GradClipAlgorithmType(LightningEnum):
    """How gradients are clipped."""

    VALUE = "value"
    NORM = "norm"
