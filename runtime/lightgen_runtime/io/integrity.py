"""Whether a checkpoint file still holds what was written to it."""

from __future__ import annotations

import hashlib
import os
import struct
import zipfile
import zlib
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

import torch

from lightgen_runtime.io.archive_check import check_archive
from lightgen_runtime.utilities.exceptions import CheckpointFormatError

# In a checkpoint that is a folder: all that is no tensor, with tensors without content in
# place of the others.
PLAIN_FILE = "checkpoint.pt"

_CHUNK = 1 << 20
# Source: the zip format; its last four bytes are the lengths of the name and of the rest.
_LOCAL_HEADER = 30


def damage_in(path: Path) -> str | None:
    """Return what is wrong with a checkpoint by its checksums; None if nothing is.

    PyTorch's zip format has one for each tensor. PyTorch itself does not look at them: a
    flipped bit would silently become a wrong weight. Its older formats have none.

    Args:
        path: The file, or the folder of `DistributedCheckpointIO`.

    Raises:
        OSError: It may not be read.
    """
    if path.is_dir():
        from lightgen_runtime.io.sharded_folder import damage_in_folder

        return damage_in_folder(path)
    with path.open("rb", buffering=0) as stream:
        if not zipfile.is_zipfile(stream):
            return None
        try:
            with zipfile.ZipFile(stream) as archive:
                damaged = _damaged_part(archive, stream)
        # A flipped bit in a header makes `zipfile` raise nearly anything.
        except Exception as error:
            return f"its table of contents is damaged ({error})"
    return None if damaged is None else f"its part `{damaged}` is damaged"


def _damaged_part(archive: zipfile.ZipFile, stream: FileIO) -> str | None:
    """Do as `ZipFile.testzip`, into one buffer, so that a thread beside is not held up."""
    buffer = memoryview(bytearray(_CHUNK))
    for part in archive.infolist():
        if part.compress_type != zipfile.ZIP_STORED:
            return part.filename  # PyTorch never compresses
        archive.open(part).close()  # compares the part's own header with the table
        stream.seek(part.header_offset)
        header = stream.read(_LOCAL_HEADER)
        stream.seek(sum(struct.unpack("<2H", header[-4:])), os.SEEK_CUR)
        left, checksum = part.compress_size, 0
        while left and (count := stream.readinto(buffer[: min(left, _CHUNK)])):
            checksum = zlib.crc32(buffer[:count], checksum)
            left -= count
        if left or checksum != part.CRC or part.compress_size != part.file_size:
            return part.filename
    return None


def content_of(path: Path) -> dict[str, Any] | None:
    """Return the checkpoint at `path` without reading its tensors, or None if it is none.

    The tensors are views of the file: look at everything else, and let them go.
    """
    if path.is_dir():
        path /= PLAIN_FILE
    try:
        if not path.is_file() or not check_archive(path, path):
            return None
    except CheckpointFormatError:
        return None
    for mapped in (True, False):  # older formats cannot be mapped
        try:
            content = torch.load(path, "cpu", weights_only=True, mmap=mapped)
        except PermissionError:
            raise
        # A damaged file makes torch raise nearly anything, from KeyError to MemoryError.
        except Exception:
            continue
        if isinstance(content, dict) and "state_dict" in content:
            return content
        return None
    return None


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


class HashingStream:
    """Passes on what is written, and knows its SHA-256.

    Args:
        stream: Where to.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        """Write all of `data`."""
        self._digest.update(data)
        return self._stream.write(data)

    def flush(self) -> None:
        """See `io.IOBase`."""
        self._stream.flush()

    def hexdigest(self) -> str:
        """Return the SHA-256 of what was written so far."""
        return self._digest.hexdigest()
