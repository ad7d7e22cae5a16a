"""The table of a model's layers and parameters."""

import pytest
import torch
from torch import nn

from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.model_summary import readable_count, summarize


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(10, 5), nn.ReLU(), nn.Linear(5, 5))
        self.head = nn.Linear(5, 2, bias=False)
        self.scale = nn.Parameter(torch.ones(3))


def test_summary_counts_by_layer_and_in_total():
    summary = summarize(Net())
    assert [(row.name, row.num_parameters) for row in summary.layers] == [
        ("body", 85),
        ("head", 10),
        ("other params", 3),
    ]
    assert summary.total_parameters == summary.trainable_parameters == 98
    assert summary.model_size == pytest.approx(98 * 4 / 1e6)


def test_summary_depth_chooses_the_rows_not_the_totals():
    net = Net()
    assert summarize(net, max_depth=0).layers == ()
    names = [row.name for row in summarize(net, max_depth=-1).layers]
    assert names == ["body", "body.0", "body.1", "body.2", "head", "other params"]
    assert summarize(net, 0).total_parameters == 98


def test_summary_refuses_other_depths():
    with pytest.raises(MisconfigurationException, match="max_depth=-2"):
        summarize(Net(), max_depth=-2)


def test_summary_counts_shared_parameters_once():
    net = Net()
    net.twin = net.head
    tied = nn.Linear(5, 2, bias=False)
    tied.weight = net.head.weight
    net.tied = tied
    assert summarize(net).total_parameters == 98


def test_summary_tells_frozen_parameters_and_modes_apart():
    net = Net()
    net.head.requires_grad_(False)
    net.body.eval()
    summary = summarize(net)
    assert summary.trainable_parameters == 88
    assert [row.training for row in summary.layers] == [False, True, None]
    assert "88 trainable, 10 non-trainable" in str(summary)


def test_summary_of_lazy_layers_says_that_numbers_are_missing():
    net = nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 1))
    summary = summarize(net)
    assert summary.has_lazy_parameters
    assert [row.is_lazy for row in summary.layers] == [True, False]
    assert "at least 4 parameters" in str(summary)


def test_summary_prints_an_aligned_table():
    assert str(summarize(Net())).splitlines() == [
        "  | Name         | Type       | Params | Mode",
        "-" * 46,
        "0 | body         | Sequential |     85 | train",
        "1 | head         | Linear     |     10 | train",
        "2 | other params | n/a        |      3 |",
        "-" * 46,
        "98 parameters: 98 trainable, 0 non-trainable; estimated size 0.000 MB",
    ]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (950, "950"),
        (1200, "1.2 K"),
        (62_600_000, "62.6 M"),
        (10**11, "100 B"),
    ],
)
def test_readable_count_keeps_three_digits(number, text):
    assert readable_count(number) == text


def test_callback_prints_the_table_to_stderr_on_rank_zero(capsys):
    from types import SimpleNamespace

    from lightgen_runtime.callbacks import ModelSummary

    ModelSummary(max_depth=1).on_fit_start(SimpleNamespace(is_global_zero=True), Net())
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "98 parameters" in captured.err
    ModelSummary().on_fit_start(SimpleNamespace(is_global_zero=False), Net())
    assert capsys.readouterr().err == ""
