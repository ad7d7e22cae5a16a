"""metrics.csv and hparams.yaml as a user finds them."""

import csv
import enum
import os
import subprocess
import sys
import textwrap
from argparse import Namespace
from pathlib import Path

import pytest
import torch
import yaml

from lightgen_runtime.loggers import CSVLogger
from lightgen_runtime.loggers import csv_logs as csv_logs_module


def read(logger):
    with (Path(logger.log_dir) / "metrics.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_folders_follow_name_and_version(tmp_path):
    assert CSVLogger(tmp_path).log_dir == str(tmp_path / "lightning_logs" / "version_0")
    assert CSVLogger(tmp_path, name="a", version=4).log_dir == str(
        tmp_path / "a" / "version_4"
    )
    assert CSVLogger(tmp_path, name=None, version="7").log_dir == str(tmp_path / "7")


def test_versions_count_up_and_are_claimed_at_once(tmp_path):
    versions = [CSVLogger(tmp_path).version for _ in range(3)]
    assert versions == [0, 1, 2]
    (tmp_path / "lightning_logs" / "version_9").mkdir()
    assert CSVLogger(tmp_path).version == 10


def test_version_taken_in_the_same_moment_is_passed_over(tmp_path, monkeypatch):
    root = tmp_path / "lightning_logs"
    (root / "version_0").mkdir(parents=True)
    real_glob = Path.glob
    monkeypatch.setattr(  # as if the folder appeared just after looking
        Path,
        "glob",
        lambda self, pattern: iter(()) if self == root else real_glob(self),
    )
    assert CSVLogger(tmp_path).version == 1


def test_rows_have_one_column_a_metric_sorted(tmp_path):
    logger = CSVLogger(tmp_path)
    logger.log_metrics({"train_loss": 0.5, "epoch": 0}, step=4)
    logger.finalize("success")
    text = (Path(logger.log_dir) / "metrics.csv").read_text()
    assert text == "epoch,step,train_loss\n0,4,0.5\n"


def test_late_metric_gets_a_column_and_keeps_earlier_rows(tmp_path):
    logger = CSVLogger(tmp_path)
    logger.log_metrics({"b": 1.0}, step=0)
    logger.save()
    logger.log_metrics({"a": 2.0}, step=1)
    logger.save()
    assert read(logger) == [
        {"a": "", "b": "1.0", "step": "0"},
        {"a": "2.0", "b": "", "step": "1"},
    ]
    assert sorted(p.name for p in Path(logger.log_dir).iterdir()) == ["metrics.csv"]


def test_rows_are_written_at_the_flushing_cadence(tmp_path):
    logger = CSVLogger(tmp_path, flush_logs_every_n_steps=10)
    for step in range(9):
        logger.log_metrics({"a": 1.0}, step=step)
    assert not (Path(logger.log_dir) / "metrics.csv").exists()
    logger.log_metrics({"a": 1.0}, step=9)
    assert len(read(logger)) == 10


def test_resumed_run_appends_to_the_same_file(tmp_path):
    for step in (0, 1):
        logger = CSVLogger(tmp_path, name="", version="run")
        logger.log_metrics({"a": float(step)}, step=step)
        logger.finalize("success")
    assert [row["a"] for row in read(logger)] == ["0.0", "1.0"]


def test_row_torn_by_a_kill_is_cut_off_on_resume(tmp_path):
    logger = CSVLogger(tmp_path, name="", version="run")
    logger.log_metrics({"a": 1.0}, step=0)
    logger.save()
    with (Path(logger.log_dir) / "metrics.csv").open("a") as stream:
        stream.write("2.0")
    resumed = CSVLogger(tmp_path, name="", version="run")
    resumed.log_metrics({"a": 3.0}, step=1)
    resumed.save()
    assert [row["a"] for row in read(resumed)] == ["1.0", "3.0"]


def test_full_disk_tears_no_row_and_loses_none(tmp_path):
    program = """
        import resource, signal, sys
        from lightgen_runtime.loggers import CSVLogger
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        logger = CSVLogger(sys.argv[1], name="", version="run")
        logger.log_metrics({"a": 1.0}, step=0)
        logger.save()
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, resource.RLIM_INFINITY))
        logger.log_metrics({"a": 2.0 / 3}, step=1)
        logger.save()
        print(open(logger.log_dir + "/metrics.csv").read(), end="")
        resource.setrlimit(
            resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        )
        logger.save()
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert result.stdout == "a,step\n1.0,0\n"
    assert result.stderr.count("metrics.csv` cannot be written: File too large.") == 1
    assert (tmp_path / "run" / "metrics.csv").read_text() == (
        "a,step\n1.0,0\n0.6666666666666666,1\n"
    )


def test_failed_rewrite_of_the_header_keeps_the_old_file(tmp_path, monkeypatch):
    logger = CSVLogger(tmp_path)
    logger.log_metrics({"a": 1.0}, step=0)
    logger.save()
    logger.log_metrics({"b": 1.0}, step=1)

    def fail(rows, columns):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(csv_logs_module, "_as_csv", fail)
        with pytest.warns(UserWarning, match="No space"):
            logger.save()
    assert [row["a"] for row in read(logger)] == ["1.0"]
    logger.save()
    assert [row["b"] for row in read(logger)] == ["", "1.0"]


def test_prefix_and_tensors_and_missing_step(tmp_path):
    logger = CSVLogger(tmp_path, prefix="x")
    logger.log_metrics({"a": torch.tensor(2.0)})
    logger.log_metrics({"a": 3.0})
    logger.save()
    assert read(logger) == [
        {"x-a": "2.0", "step": "0"},
        {"x-a": "3.0", "step": "1"},
    ]


def test_nothing_logged_writes_no_metrics_file(tmp_path):
    logger = CSVLogger(tmp_path)
    logger.finalize("failed")
    assert list(Path(logger.log_dir).iterdir()) == []


class Color(enum.Enum):
    RED = 1


def test_hyperparameters_are_plain_yaml(tmp_path):
    logger = CSVLogger(tmp_path)
    logger.log_hyperparams(
        Namespace(lr=0.1, sizes=(1, 2), folder=Path("a"), color=Color.RED, none=None)
    )
    text = (Path(logger.log_dir) / "hparams.yaml").read_text()
    assert yaml.safe_load(text) == {
        "lr": 0.1,
        "sizes": [1, 2],
        "folder": "a",
        "color": "RED",
        "none": None,
    }


def test_only_rank_zero_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_logs_module.rank_zero_only, "rank", 1)
    logger = CSVLogger(tmp_path, version=0)
    logger.log_metrics({"a": 1.0}, step=0)
    logger.log_hyperparams({"lr": 1})
    logger.finalize("success")
    assert list(tmp_path.iterdir()) == []
