"""Only one process talks."""

import logging

import pytest

from lightgen_runtime.utilities import rank_zero


@pytest.fixture
def other_rank(monkeypatch):
    monkeypatch.setattr(rank_zero.rank_zero_only, "rank", 1)


@rank_zero.rank_zero_only
def answer():
    return 42


def test_rank_zero_runs_and_returns():
    assert answer() == 42


def test_other_ranks_do_nothing(other_rank, caplog):
    caplog.set_level("INFO", "lightgen_runtime")
    assert answer() is None
    rank_zero.rank_zero_info("quiet")
    rank_zero.rank_zero_warn("quiet")  # warnings are errors here
    assert caplog.messages == []


def test_warning_blames_the_caller_and_has_its_category():
    def library_function():
        rank_zero.rank_zero_warn("careful", RuntimeWarning)

    with pytest.warns(RuntimeWarning, match="careful") as caught:
        library_function()
    assert caught[0].filename == __file__
    with pytest.warns(DeprecationWarning, match="old"):
        rank_zero.rank_zero_deprecation("old")


def test_messages_reach_stderr_unless_the_program_configured_logging(
    capsys, monkeypatch
):
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    rank_zero.rank_zero_info("hello")
    assert capsys.readouterr() == ("", "hello\n")
    monkeypatch.setattr(root, "handlers", [logging.NullHandler()])
    rank_zero.rank_zero_info("hello again")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("variable", "value", "rank"),
    [("RANK", "3", 3), ("SLURM_PROCID", "2", 2), ("RANK", "x", 0)],
)
def test_rank_comes_from_the_launcher(variable, value, rank, monkeypatch):
    for name in ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, value)
    assert rank_zero._rank_from_environment() == rank
