"""The values of options, checked: what a scheduler would refuse or misread later."""

from __future__ import annotations

import re

from lightgen.errors import JobOptionError

# Source: the forms that `man sbatch` lists under --time.
_TIME = re.compile(r"\d+(:\d\d){0,2}|\d+-\d+(:\d\d){0,2}")
_SLURM_MEMORY = re.compile(r"\d+[KMGT]?")
# Source: the quantities of Kubernetes, whole numbers only.
_QUANTITY = re.compile(r"[1-9]\d*(Ki|Mi|Gi|Ti|k|M|G|T)?")
_SLURM_NAME = re.compile(r"[A-Za-z0-9][\w.,:@+-]*")
# Source: RFC 1123, which Kubernetes holds names to.
_DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
# Source: YAML 1.1, which the tools of Kubernetes read; other plain words are strings.
_YAML_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}
_IMAGE = re.compile(r"[A-Za-z0-9][\w.:/@-]*")
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:]+\]")


def check_number(option: str, value: int, least: int, unit: str) -> None:
    """Refuse a number that is too small.

    Raises:
        JobOptionError: It is.
    """
    if value < least:
        raise JobOptionError(
            f"{value} is too small", where=option, accepted=f"{unit}, at least {least}"
        )


def check_time(option: str, value: str) -> None:
    """Refuse what SLURM does not read as a time.

    Raises:
        JobOptionError: It is no time.
    """
    if _TIME.fullmatch(value):
        return
    found = re.fullmatch(r"(\d+)\s*(d|h|m)\w*", value)
    todo = ""
    if found:
        number, unit = found.groups()
        spelled = {"d": f"{number}-00", "h": f"{number}:00:00", "m": number}[unit]
        todo = f"{option.removeprefix('option ')} {spelled}"
    raise JobOptionError(
        f"{value!r} is no time",
        where=option,
        accepted="MINUTES, HH:MM:SS, DAYS-HH or DAYS-HH:MM:SS, as in 24:00:00 or 2-00",
        todo=todo,
    )


def check_slurm_memory(option: str, value: str) -> None:
    """Refuse what SLURM does not read as memory.

    Raises:
        JobOptionError: It is none.
    """
    _check(_SLURM_MEMORY, option, value, "a whole number with K, M, G or T, as in 200G")


def check_slurm_name(option: str, value: str) -> None:
    """Refuse what cannot be a name in a SLURM cluster.

    Raises:
        JobOptionError: It cannot.
    """
    _check(_SLURM_NAME, option, value, "a name of your cluster, without spaces")


def check_quantity(option: str, value: str) -> None:
    """Refuse what Kubernetes does not read as memory.

    Raises:
        JobOptionError: It is none.
    """
    _check(_QUANTITY, option, value, "a whole number with Mi, Gi or Ti, as in 16Gi")


def check_dns_label(option: str, value: str) -> None:
    """Refuse what cannot be a name in Kubernetes.

    Raises:
        JobOptionError: It is no DNS label.
    """
    if not _DNS_LABEL.fullmatch(value):
        near = as_dns_label(value)
        raise JobOptionError(
            f"{value!r} cannot be a name in Kubernetes",
            where=option,
            accepted="a DNS label: at most 63 of a-z, 0-9 and `-`, neither first nor "
            "last a `-`",
            todo=f"{option.removeprefix('option ')} {near}" if near else "",
        )


def as_dns_label(name: str) -> str:
    """Spell a name as a DNS label; "" if nothing of it can be in one."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower())[:63].strip("-")


def as_yaml(name: str) -> str:
    """Spell a name or an image so that YAML takes it for a string."""
    plain = name[:1].isalpha() and name.lower() not in _YAML_WORDS
    return name if plain else f'"{name}"'


def check_image(option: str, value: str) -> None:
    """Refuse what cannot be the name of a container image.

    Raises:
        JobOptionError: It cannot.
    """
    _check(_IMAGE, option, value, "an image, as in registry.example.com/mymodel:1")


def check_folder(option: str, value: str) -> None:
    """Refuse a folder that is not given in full.

    Raises:
        JobOptionError: It is not, or has a character that YAML or a shell would read.
    """
    _check(
        re.compile(r"/[\w.-][\w./-]*"),
        option,
        value,
        "an absolute path, as in /workspace",
    )


def check_endpoint(option: str, value: str) -> None:
    """Refuse what is no `HOST:PORT`.

    Raises:
        JobOptionError: It is not.
    """
    host, _, port = value.rpartition(":")
    if _HOST.fullmatch(host) and port.isdigit() and 0 < int(port) < 65536:
        return
    is_host = bool(_HOST.fullmatch(value)) and not value.isdigit()
    raise JobOptionError(
        f"{value!r} is no address to meet at",
        where=option,
        accepted="HOST:PORT of the first machine, as its others reach it",
        todo=f"{option.removeprefix('option ')} {value}:29400" if is_host else "",
    )


def check_line(option: str, value: str) -> None:
    """Refuse a text of several lines.

    Raises:
        JobOptionError: It has some.
    """
    if not value.strip() or len(value.splitlines()) > 1:
        raise JobOptionError(
            f"{value!r} is not one line of a shell script",
            where=option,
            accepted='a command, as in "module load cuda"; may be repeated',
        )


def _check(pattern: re.Pattern[str], option: str, value: str, accepted: str) -> None:
    if not pattern.fullmatch(value):
        raise JobOptionError(
            f"{value!r} is not accepted", where=option, accepted=accepted
        )
