"""Turns the `--template` of a user into a folder that copier can render."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lightgen.errors import UnknownTemplateError
from lightgen.project.git import without_git_variables
from lightgen.project.paths import absolute_path
from lightgen.project.state import TemplateRecord
from lightgen.project.tree import folder_digest
from lightgen.project.write import put_files
from lightgen.rendering.bundled import (
    bundled_files,
    bundled_names,
    unknown_template,
)
from lightgen.rendering.scratch import scratch_folder, scratch_refused
from lightgen.rendering.template import TemplateConfig, read_config

_OPTION = "option --template"
# What copier takes for a repository (copier 9.19).
_GIT_PREFIXES = ("git@", "git://", "git+", "https://github.com/", "https://gitlab.com/")
_GIT_SHORTCUTS = {"gh:": "https://github.com/", "gl:": "https://gitlab.com/"}


@dataclass(frozen=True)
class OpenTemplate:
    """A template at hand.

    Attributes:
        config: Its questions and features.
        record: What the project will remember of it.
        address: What to give copier: a folder or a repository.
        ref: The commit that was inspected, for copier to render the same one; None for
            a folder.
    """

    config: TemplateConfig
    record: TemplateRecord
    address: str
    ref: str | None = None


@contextlib.contextmanager
def open_template(reference: str) -> Iterator[OpenTemplate]:
    """Make a template available for as long as the context lasts.

    Args:
        reference: A bundled name, a folder, or the address of a git repository such as
            `gh:owner/name`. A bundled name wins over a folder of the same name, which
            `./name` reaches.

    Raises:
        UnknownTemplateError: If it is none of these, or cannot be read or fetched.
        TemplateFormatError: If it is no copier template.
        WriteError: If a temporary folder cannot be written.
    """
    with scratch_folder("template") as scratch:
        folder = scratch / "template"
        if reference in bundled_names():
            yield _open_bundled(reference, folder)
        elif (local := absolute_path(reference, where=_OPTION)).is_dir():
            yield _open_local(reference, local.resolve(), folder)
        elif _is_git_address(reference):
            yield _open_git(reference, folder)
        elif "://" in reference:
            raise UnknownTemplateError(
                f"`{reference}` is not known to be a git address",
                where=_OPTION,
                accepted="an address of github.com or gitlab.com, and of any other "
                "host one that begins with `git+` or ends in `.git`",
                todo=f"if it is a repository: --template git+{reference}",
            )
        elif any(mark in reference for mark in ("/", os.sep, "~")):
            raise UnknownTemplateError(
                f"there is no folder `{reference}`",
                where=_OPTION,
                accepted="a bundled name, an existing folder, or a git address",
                todo="check the path, or see: lightgen templates list",
            )
        else:
            raise unknown_template(reference, where=_OPTION)


def _open_bundled(name: str, folder: Path) -> OpenTemplate:
    try:
        put_files(folder, bundled_files(name))
    except OSError as error:
        raise scratch_refused(error) from error
    config = read_config(folder, shown_as=name)
    record = TemplateRecord(name, config.version, folder_digest(folder), "bundled")
    return OpenTemplate(config, record, str(folder))


def _open_local(reference: str, original: Path, folder: Path) -> OpenTemplate:
    """Copy a folder without its `.git`, whose settings would have git run programs.

    Of a repository, copier would also render the newest tag instead of the files.
    """

    def left_out(parent: str, names: list[str]) -> set[str]:
        # The temporary folder may lie within the template.
        scratch = folder.parent.resolve()
        return {x for x in names if x == ".git" or Path(parent, x) == scratch}

    try:
        config = read_config(original, shown_as=reference)
        shutil.copytree(original, folder, symlinks=True, ignore=left_out)
    except shutil.Error as error:
        path, _, reason = error.args[0][0]
        raise _unreadable(reference, path, reason) from error
    except OSError as error:
        place = str(error.filename or original)
        raise _unreadable(reference, place, error.strerror or str(error)) from error
    digest = folder_digest(folder)
    record = TemplateRecord(original.name, config.version, digest, str(original))
    return OpenTemplate(config, record, str(folder))


def _unreadable(reference: str, place: str, reason: str) -> UnknownTemplateError:
    return UnknownTemplateError(
        f"the template `{reference}` cannot be copied: {reason}",
        where=place,
        accepted="a folder of plain files that you may read, and room for a copy",
        todo="change its permissions, or name another",
    )


def _open_git(address: str, folder: Path) -> OpenTemplate:
    url = _git_url(address)
    _git("clone", "--quiet", "--", url, str(folder), address=address)
    if tag := _newest_release(_git("tag", cwd=folder, address=address).split()):
        _git("checkout", "--quiet", tag, "--", cwd=folder, address=address)
    commit = _git("rev-parse", "HEAD", cwd=folder, address=address).strip()
    config = read_config(folder, shown_as=address)
    name = re.split(r"[/:]", url.rstrip("/").removesuffix(".git"))[-1]
    version = config.version or tag or commit
    record = TemplateRecord(name, version, folder_digest(folder), address)
    return OpenTemplate(config, record, address, ref=commit)


def _is_git_address(reference: str) -> bool:
    return reference.startswith((*_GIT_PREFIXES, *_GIT_SHORTCUTS)) or (
        reference.endswith(".git") and not reference.startswith("-")
    )


def _git_url(address: str) -> str:
    for shortcut, site in _GIT_SHORTCUTS.items():
        if address.startswith(shortcut):
            path = address.removeprefix(shortcut).lstrip("/").removesuffix(".git")
            return f"{site}{path}.git"
    return address.removeprefix("git+")


def _newest_release(tags: list[str]) -> str | None:
    """Pick the tag that copier would: the highest version that is no prerelease."""
    from packaging.version import InvalidVersion, Version

    releases: dict[Version, str] = {}
    for tag in tags:
        with contextlib.suppress(InvalidVersion):
            version = Version(tag)
            if not version.is_prerelease:
                releases[version] = tag
    return releases[max(releases)] if releases else None


def _git(*arguments: str, address: str, cwd: Path | None = None) -> str:
    try:
        with without_git_variables():
            done = subprocess.run(
                ["git", *arguments], cwd=cwd, capture_output=True, text=True, check=True
            )
    except FileNotFoundError as error:
        raise UnknownTemplateError(
            f"git is needed to fetch `{address}` and is not installed",
            where=_OPTION,
            accepted="a bundled name or a folder work without git",
            todo="install git, then try again",
        ) from error
    except subprocess.CalledProcessError as error:
        reason = error.stderr.strip().splitlines() or ["no reason given"]
        raise UnknownTemplateError(
            f"git could not fetch `{address}`: {reason[-1]}",
            where=_OPTION,
            accepted="the address of a repository that you may read",
            todo=f"try it by hand: git ls-remote {_git_url(address)}",
        ) from error
    return done.stdout
