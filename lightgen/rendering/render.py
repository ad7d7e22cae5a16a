"""Renders a template through copier, in a scratch folder, into memory.

copier runs with no tasks, no unsafe features and none of the user's own copier
settings, so that the same template and answers give the same files for everybody.
"""

from __future__ import annotations

import errno
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightgen.errors import (
    InvalidAnswerError,
    TemplateFormatError,
    VerificationError,
)
from lightgen.project.git import without_git_variables
from lightgen.project.tree import FileTree, TreeFile, read_tree
from lightgen.rendering.scratch import scratch_folder, scratch_refused
from lightgen.rendering.source import OpenTemplate
from lightgen.rendering.template import TemplateConfig, untrusted

# What the names and files of a template can cause, wherever it is rendered.
_FAULTS_OF_THE_TEMPLATE = frozenset(
    {errno.EEXIST, errno.EISDIR, errno.ELOOP, errno.EINVAL, errno.ENAMETOOLONG}
    | {errno.ENOENT, errno.ENOTDIR, errno.ENOTEMPTY}
)

if TYPE_CHECKING:
    from copier._main import Worker


@dataclass(frozen=True)
class Rendered:
    """The files of a project, and the answers that led to them."""

    tree: FileTree
    answers: dict[str, Any]


def render(
    template: OpenTemplate, name: str, data: Mapping[str, str], *, interactive: bool
) -> Rendered:
    """Render a template for a project called `name`.

    Args:
        template: An open template without unsafe features.
        name: The project's name, given to the template as `package` if it asks for it.
        data: Checked answers; copier converts them to their types.
        interactive: Ask for the other answers on the terminal; else take defaults.

    Raises:
        InvalidAnswerError: If the template refuses an answer, or needs one more.
        TemplateFormatError: If the template itself is broken.
        VerificationError: If the template writes outside the project, or links.
        WriteError: If a temporary folder cannot be written.
    """
    answers: dict[str, Any] = dict(data)
    if "package" in template.config.questions:
        answers["package"] = name
    with scratch_folder("render") as scratch:
        # copier offers the folder's name to templates.
        folder = scratch / name
        worker = _run_copier(template, folder, answers, interactive=interactive)
        tree = read_tree(folder) if folder.is_dir() else {}
    tree = _with_source(tree, template)
    return Rendered(tree, _recordable(template.config, worker))


def _with_source(tree: FileTree, template: OpenTemplate) -> FileTree:
    """Name the template's own place where copier wrote that of the temporary copy."""
    copy, source = template.address.encode(), template.record.source.encode()
    return {
        path: TreeFile(file.content.replace(copy, source), file.executable)
        for path, file in tree.items()
    }


def _run_copier(
    template: OpenTemplate, folder: Path, answers: dict[str, Any], *, interactive: bool
) -> Worker:
    # copier keeps the environment as it is when it is imported.
    with without_git_variables():
        import copier
        from copier.errors import (
            CopierError,
            CopierWarning,
            ForbiddenPathError,
            InteractiveSessionError,
            UnsafeTemplateError,
        )
    from jinja2 import TemplateError
    from pydantic import ValidationError

    try:
        with without_git_variables(), warnings.catch_warnings():
            warnings.simplefilter("ignore", CopierWarning)
            return copier.run_copy(
                template.address,
                folder,
                answers,
                vcs_ref=template.ref,
                settings=copier.Settings(),
                defaults=not interactive,
                overwrite=True,
                quiet=True,
                unsafe=False,
                skip_tasks=True,
            )
    except KeyboardInterrupt:
        raise
    except UnsafeTemplateError as error:
        raise untrusted(template.record.id, "something in its copier.yml") from error
    except ForbiddenPathError as error:
        raise VerificationError(
            f"the template wants to leave the project: {error}",
            accepted="paths inside the project",
            todo="check the answers given, then report it to the template's author",
        ) from error
    except (TemplateError, ValidationError) as error:
        raise _broken(template, error) from error
    except (InteractiveSessionError, TypeError, ValueError) as error:
        raise _refused_answer(template, error) from error
    except CopierError as error:
        raise _broken(template, error) from error
    except OSError as error:
        # Without a number: a program that copier started failed, not the disk.
        if error.errno is None or error.errno in _FAULTS_OF_THE_TEMPLATE:
            raise _broken(template, error) from error
        raise scratch_refused(error) from error


def _broken(template: OpenTemplate, error: Exception) -> TemplateFormatError:
    line = f", line {error.lineno}" if hasattr(error, "lineno") else ""
    return TemplateFormatError(
        f"the template `{template.record.id}` cannot be rendered: {error}",
        where=f"{getattr(error, 'name', None) or template.record.source}{line}",
        accepted="a copier template whose variables are all defined",
        todo="report it to the template's author",
    )


def _refused_answer(template: OpenTemplate, error: Exception) -> InvalidAnswerError:
    return InvalidAnswerError(
        f"the template `{template.record.id}` refuses an answer: {error}",
        where="options --data",
        accepted="what the template's questions ask for",
        todo="give the answer as --data KEY=VALUE",
    )


def _recordable(config: TemplateConfig, worker: Worker) -> dict[str, Any]:
    """Pick the answers that a project may remember, as plain JSON values."""
    combined, hidden = worker.answers.combined, worker.answers.hidden
    secrets = set(worker.template.secret_questions)
    answers = {
        name: combined[name]
        for name, question in config.questions.items()
        if name in combined and name not in hidden and name not in secrets
        if not question.secret
    }
    plain: dict[str, Any] = json.loads(json.dumps(answers, default=str))
    return plain
