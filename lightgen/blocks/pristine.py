"""The pristine text of a file whose block is generated anew.

`.lightgen/base` and the hashes in the project's records describe what lightgen would
write today, blocks included: so a block that was regenerated is no edit of the user's.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lightgen.blocks.optimizer import METHOD, Regeneration
from lightgen.errors import BlockNotFoundError
from lightgen.project.journal import read_file
from lightgen.project.state import ProjectState, base_path
from lightgen.project.tree import FileTree, TreeFile, sha256
from lightgen.regen.block import Place
from lightgen.regen.surroundings import with_block_replaced


def with_base(
    root: Path, state: ProjectState, result: Regeneration
) -> tuple[ProjectState, FileTree]:
    """Bring a new block into the pristine text of its file.

    Returns:
        The project's records, and the file to write; the records as they were and none,
        if the file is not a template's or its pristine text is lost.
    """
    block = result.block
    path = base_path(block.file)
    content = read_file(root, path)
    if content is None or sha256(content) != state.files.get(block.file):
        return state, {}
    place = Place(block.file, block.class_name, METHOD)
    dropped = result.former.base.imports if result.former else ()
    try:
        text = with_block_replaced(content.decode(), place, block.base, dropped)
    except BlockNotFoundError:  # a class that the user wrote or renamed
        return state, {}
    files = {**state.files, block.file: sha256(text.encode())}
    return replace(state, files=files), {path: TreeFile(text.encode())}
