"""Checkpoints that released versions have written resume to the same weights for ever."""

from pathlib import Path

import pytest
import torch
from old_runs import RUNS, run

FOLDER = Path(__file__).parent / "checkpoints"
KEPT = sorted(path.relative_to(FOLDER) for path in FOLDER.glob("*/*.ckpt"))


def test_every_version_kept_has_every_run() -> None:
    versions = [path.name for path in FOLDER.iterdir() if path.name[0].isdigit()]
    assert "0.1.0" in versions
    found = {path.with_suffix("").as_posix() for path in KEPT}
    assert found == {f"{version}/{name}" for version in versions for name in RUNS}


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.as_posix())
def test_kept_checkpoint_resumes_to_the_same_weights(path: Path) -> None:
    resumed = run(path.stem, ckpt_path=FOLDER / path).state_dict()
    expected = torch.load(FOLDER / path.with_suffix(".end.pt"), weights_only=True)
    assert resumed.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(resumed[name], weight)


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.as_posix())
def test_kept_checkpoint_gives_its_module(path: Path) -> None:
    cls = RUNS[path.stem][0]
    loaded = cls.load_from_checkpoint(FOLDER / path)
    assert loaded.hparams == {"lr": 0.05}
