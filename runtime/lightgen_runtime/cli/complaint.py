"""Saying what is wrong: on stderr, and where torchrun looks for the reason of a failure."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from pathlib import Path

from torch.distributed import DistError

from lightgen_runtime.utilities.rank_zero import rank_zero_only


def complain(message: str) -> None:
    """Write `error: <message>` to stderr.

    Under torchrun it stands in its report, too, which comes last; there alone if it is a
    process's that does not talk otherwise.
    """
    text = f"error: {message}"
    if not _report(text) or rank_zero_only.rank == 0:
        sys.stderr.write(f"{text}\n")


def report_exception(error: BaseException) -> None:
    """Have torchrun's report name what the traceback further above ends with.

    Not what the end of another process has caused: it would pass for the reason.
    """
    if not isinstance(error, DistError) and "by peer" not in str(error):
        _report("".join(traceback.format_exception_only(error)).strip())


def _report(text: str) -> bool:
    """Write to the file that torchrun reads; tell if there is one.

    Source: what `torch.distributed.elastic.multiprocessing.errors` writes there.
    """
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path is None:
        return False
    shown = {"py_callstack": text, "timestamp": str(int(time.time()))}
    try:
        Path(path).write_text(
            json.dumps({"message": {"message": text, "extraInfo": shown}}),
            encoding="utf-8",
        )
    except OSError:
        return False
    return True
