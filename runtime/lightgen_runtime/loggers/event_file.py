"""The file below a TensorBoard writer, which keeps what the disk refuses."""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

_MOST_BUFFERED_BYTES = 1_000_000  # of records that wait for a flush
# Of records that wait for the disk: memory, and a part of each checkpoint.
_MOST_WAITING_BYTES = 10_000_000


class EventFile:
    """Take the place of the file that TensorBoard's writing thread writes to.

    An error would end that thread, and with it the writer. Here, records wait for the
    next flush, in the order they came; none is torn.

    Attributes:
        path: Where the records go.
        size: Of the whole records in the file, in bytes.
        refused: What the system said at the last flush; None if it has taken all.
        dropped: Records that waited until there were too many.
    """

    closed = False

    def __init__(self, path: str) -> None:
        self.path = path
        self.size = Path(path).stat().st_size
        self.refused: OSError | None = None
        self.dropped = 0
        self._records: deque[bytes] = deque()
        self._bytes = 0
        self._is_torn = False
        self._lock = Lock()  # the thread and its owner both flush

    @classmethod
    def below(cls, event_writer: Any) -> EventFile | None:
        """Put one below a TensorBoard `EventFileWriter`; None where its files are remote."""
        if "://" in event_writer._file_name:
            return None
        event_writer._async_writer._writer._writer = file = cls(event_writer._file_name)
        return file

    @property
    def waiting(self) -> int:
        """How many records are not in the file yet."""
        return len(self._records)

    def waiting_bytes(self) -> bytes:
        """Return the records that are not in the file yet."""
        with self._lock:
            return b"".join(self._records)

    def write(self, record: bytes) -> None:
        """Take a whole record; it reaches the disk by the next flush."""
        with self._lock:
            self._records.append(record)
            self._bytes += len(record)
            while self._bytes > _MOST_WAITING_BYTES and self.refused is not None:
                self._bytes -= len(self._records.popleft())
                self.dropped += 1
            is_due = self._bytes > _MOST_BUFFERED_BYTES and self.refused is None
        if is_due:
            self.flush()

    def flush(self) -> None:
        """Write the records to the file, all of them or none."""
        with self._lock:
            try:
                self._append(b"".join(self._records))
            except OSError as error:
                with suppress(OSError):
                    self._cut_torn()
                self.refused = error
                return
            self._records.clear()
            self._bytes = 0
            self.refused = None

    def close(self) -> None:
        """Try a last time."""
        self.flush()
        self.closed = True

    def _append(self, content: bytes) -> None:
        if not content:
            return
        self._cut_torn()
        # Not "ab": a file that has gone with its disk is not begun anew.
        with Path(self.path).open("r+b", buffering=0) as stream:
            stream.seek(self.size)
            self._is_torn = True
            rest = memoryview(content)
            while rest:
                rest = rest[stream.write(rest) :]
        self._is_torn = False
        self.size += len(content)

    def _cut_torn(self) -> None:
        if self._is_torn:
            os.truncate(self.path, self.size)
            self._is_torn = False
