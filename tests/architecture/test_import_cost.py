"""What an import of the runtime must not pull in, seen from a fresh interpreter."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _loaded_by(code: str, tmp_path: Path) -> set[str]:
    """The names of every module loaded once `code` has run."""
    listing = tmp_path / "modules"
    code += f"\nimport sys; open({str(listing)!r}, 'w').write('\\n'.join(sys.modules))"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    return set(listing.read_text().splitlines())


@pytest.mark.parametrize(
    ("code", "forbidden"),
    [
        pytest.param("import lightgen_runtime", {"torch"}, id="lightgen_runtime"),
        pytest.param(
            "from lightgen_runtime import (\n"
            "    Callback, LightningDataModule, LightningModule, Trainer)",
            {
                *("rich", "jsonargparse", "lightning", "torchmetrics", "tensorboard"),
                *("scipy", "sklearn", "matplotlib", "torch._dynamo"),
            },
            id="the runtime's public names",
        ),
    ],
)
def test_import_leaves_out(code: str, forbidden: set[str], tmp_path: Path) -> None:
    loaded = _loaded_by(code, tmp_path)
    assert "sys" in loaded
    assert loaded & forbidden == set()
