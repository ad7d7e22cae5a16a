"""`RichModelSummary`."""

from __future__ import annotations

import pytest
from small_runs import Small, fitted

from lightgen_runtime.callbacks import ModelSummary, RichModelSummary


def test_table_is_drawn_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    summary = RichModelSummary(max_depth=1, title="What is trained")
    assert isinstance(summary, ModelSummary)
    fitted(Small(), callbacks=[summary], enable_model_summary=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    for text in ("What is trained", "layer", "Linear", "5 parameters: 5 trainable"):
        assert text in shown.err
