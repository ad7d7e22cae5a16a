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
_GPU_TYPE = re.compile(r"[A-Za-z0-9][\w.-]*")
# Source: RFC 1123, which Kubernetes holds names to.
_DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
# Source: RFC 1035, for services; the pods' names, which are labels, too, add up to 13
# characters behind it, as in `-worker-12345`.
_JOB_NAME = re.compile(r"[a-z]([a-z0-9-]{0,48}[a-z0-9])?")
_LONGEST_JOB_NAME = 50
# Source: YAML 1.1, which the tools of Kubernetes read; other plain words are strings.
_YAML_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}
_IMAGE = re.compile(r"[A-Za-z0-9][\w.:/@-]*")
_FOLDER = re.compile(r"/[\w.-][\w./-]*")
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:]+\]")


def check_number(option: str, value: int, least: int, unit: str) -> None:
    """Refuse a number that is too small.

    Raises:
        JobOptionError: It is.
    """
    if value < least:
        raise JobOptionError(
            f"{value} is too small",
            where=option,
            accepted=f"a number from {least}: {unit}",
            todo=f"{_flag(option)} {least}, or more",
        )


def check_time(option: str, value: str) -> None:
    """Refuse what SLURM does not read as a time.

    Raises:
        JobOptionError: It is no time.
    """
    if _TIME.fullmatch(value):
        return
    found = re.fullmatch(r"(\d+)\s*(d|h|m)\w*", value)
    spelled = "24:00:00"
    if found:
        number, unit = found.groups()
        spelled = {"d": f"{number}-00", "h": f"{number}:00:00", "m": number}[unit]
    raise JobOptionError(
        f"{value!r} is no time",
        where=option,
        accepted="MINUTES, HH:MM:SS, DAYS-HH or DAYS-HH:MM:SS, as in 24:00:00 or 2-00",
        todo=f"{_flag(option)} {spelled}",
    )


def seconds_of(time: str) -> int:
    """Return the seconds of a time that `check_time` lets pass; 0 is no limit."""
    days, dash, rest = time.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash:  # DAYS-HH[:MM[:SS]]
        hours, minutes, seconds = (*parts, 0, 0)[:3]
    elif len(parts) < 3:  # MINUTES[:SS]
        hours, (minutes, seconds) = 0, (*parts, 0)[:2]
    else:
        hours, minutes, seconds = parts
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def check_slurm_memory(option: str, value: str) -> None:
    """Refuse what SLURM does not read as memory.

    Raises:
        JobOptionError: It is none.
    """
    _check(_SLURM_MEMORY, option, value, "a whole number with K, M, G or T", "200G")


def check_slurm_name(option: str, value: str) -> None:
    """Refuse what cannot be a name in a SLURM cluster.

    Raises:
        JobOptionError: It cannot.
    """
    _check(_SLURM_NAME, option, value, "a name of your cluster, without spaces", "gpu")


def check_gpu_type(option: str, value: str) -> None:
    """Refuse what cannot be SLURM's name of a kind of device.

    Raises:
        JobOptionError: It cannot.
    """
    accepted = "a name of your cluster; how many is said by --devices"
    _check(_GPU_TYPE, option, value, accepted, "a100")


def check_quantity(option: str, value: str) -> None:
    """Refuse what Kubernetes does not read as memory.

    Raises:
        JobOptionError: It is none.
    """
    _check(_QUANTITY, option, value, "a whole number with Mi, Gi or Ti", "16Gi")


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
            todo=f"{_flag(option)} {near or 'mymodel'}",
        )


def check_job_name(option: str, value: str) -> None:
    """Refuse what cannot be the name of a job in Kubernetes, and of its service.

    Raises:
        JobOptionError: It cannot.
    """
    if not _JOB_NAME.fullmatch(value):
        raise JobOptionError(
            f"{value!r} cannot be the name of a job in Kubernetes",
            where=option,
            accepted=f"at most {_LONGEST_JOB_NAME} of a-z, 0-9 and `-`, a letter first, "
            "no `-` last",
            todo=f"{_flag(option)} {as_job_name(value) or 'mymodel'}",
        )


def as_dns_label(name: str) -> str:
    """Spell a name as a DNS label; "" if nothing of it can be in one."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower())[:63].strip("-")


def as_job_name(name: str) -> str:
    """Spell a name as that of a job; "" if it has no letter."""
    label = as_dns_label(name).lstrip("0123456789-")
    return label[:_LONGEST_JOB_NAME].rstrip("-")


def as_yaml(name: str) -> str:
    """Spell a name or an image so that YAML takes it for a string."""
    plain = name[:1].isalpha() and name.lower() not in _YAML_WORDS
    return name if plain else f'"{name}"'


def check_image(option: str, value: str) -> None:
    """Refuse what cannot be the name of a container image.

    Raises:
        JobOptionError: It cannot.
    """
    _check(_IMAGE, option, value, "an image", "registry.example.com/mymodel:1")


def check_folder(option: str, value: str) -> None:
    """Refuse a folder that is not given in full.

    Raises:
        JobOptionError: It is not, or has a character that YAML or a shell would read.
    """
    _check(_FOLDER, option, value, "an absolute path", "/workspace")


def check_endpoint(option: str, value: str) -> None:
    """Refuse what is no `HOST:PORT`.

    Raises:
        JobOptionError: It is not.
    """
    host, _, port = value.rpartition(":")
    if _HOST.fullmatch(host) and port.isdigit() and 0 < int(port) < 65536:
        return
    is_name = bool(_HOST.fullmatch(host or value)) and not value.isdigit()
    near = (host or value) if is_name else "HOST"
    raise JobOptionError(
        f"{value!r} is no address to meet at",
        where=option,
        accepted="HOST:PORT of the first machine, as its others reach it",
        todo=f"{_flag(option)} {near}:29400",
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
            accepted="a command; may be repeated",
            todo=f'{_flag(option)} "module load cuda"',
        )


def _check(
    pattern: re.Pattern[str], option: str, value: str, accepted: str, example: str
) -> None:
    if not pattern.fullmatch(value):
        raise JobOptionError(
            f"{value!r} is not accepted",
            where=option,
            accepted=accepted,
            todo=f"for example: {_flag(option)} {example}",
        )


def _flag(option: str) -> str:
    return option.removeprefix("option ")
