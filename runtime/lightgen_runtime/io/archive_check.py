"""What a file's outside says before anything in it is read: damage, code, bombs."""

from __future__ import annotations

import zipfile
from collections import Counter
from pathlib import Path, PurePosixPath

from lightgen_runtime.io.location import AnyPath
from lightgen_runtime.utilities.exceptions import CheckpointFormatError

# What a file unpacks to is absurd beyond this many times its size; torch packs nothing.
_MOST_TIMES = 16
ALWAYS_FINE_BYTES = 64 * 2**20

USE_ANOTHER = "Name another checkpoint, or train again without one."


def is_absurd(nbytes: int, size: int) -> bool:
    """Tell whether `nbytes` can only come out of a file of `size` bytes by a trick."""
    return nbytes > max(ALWAYS_FINE_BYTES, _MOST_TIMES * size)


def check_archive(file: Path, path: AnyPath) -> bool:
    """Refuse an archive that holds code or would unpack to absurd sizes.

    Args:
        file: Where it can be read. What is no zip archive, as older PyTorch wrote them,
            passes: whoever reads on finds that out.
        path: What the user calls it.

    Returns:
        Whether it can be read on. An archive whose table nobody can read must not be, even
        if torch reads it: what it unpacks to is not known.

    Raises:
        CheckpointFormatError: It is not what `torch.save` writes.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            records = archive.infolist()
    # A flipped bit in its table makes `zipfile` raise nearly anything.
    except Exception:
        with file.open("rb") as stream:
            return stream.read(2) != b"PK"
    size, total = file.stat().st_size, sum(record.file_size for record in records)
    if is_absurd(total, size):
        raise CheckpointFormatError(
            f"The checkpoint `{path}` has {size} bytes and claims to hold {total}: nothing "
            f"that was saved by torch does. Nothing was loaded. {USE_ANOTHER}"
        )
    names = Counter(record.filename for record in records)
    odd = [name for name, count in names.items() if count > 1 or _leads_out(name)]
    if odd:
        raise CheckpointFormatError(
            f"The checkpoint `{path}` has records that torch does not write, twice or "
            f"outside of their folder: {odd[:4]}. Nothing was loaded. {USE_ANOTHER}"
        )
    if any(PurePosixPath(name).name == "constants.pkl" for name in names):
        raise CheckpointFormatError(
            f"`{path}` is a TorchScript archive: a program with its weights, not a "
            "checkpoint. Nothing was loaded. If you trust whoever wrote it, "
            "`torch.jit.load(path).state_dict()` gives the weights."
        )
    return True


def _leads_out(name: str) -> bool:
    return name.startswith(("/", "\\")) or ".." in PurePosixPath(name).parts
