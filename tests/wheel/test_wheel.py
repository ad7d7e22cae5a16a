"""lightgen as a user gets it: from its wheel, with only what the wheel asks for.

An empty virtual environment receives the wheel and links to exactly those installed
distributions that its requirements name, directly or through others. A dependency that
is used but not declared is missing there.
"""

import json
import os
import re
import subprocess
import sys
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
HAND_WRITTEN = """\
import lightgen_runtime as L
import torch


class Net(L.LightningModule):
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.1)
"""


def _run(
    command: list[str | Path], folder: Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run with nothing of this process's surroundings but the essentials."""
    kept = {
        key: os.environ[key]
        for key in ("OMP_NUM_THREADS", "SYSTEMROOT", "TMPDIR")
        if key in os.environ
    }
    done = subprocess.run(
        command,
        cwd=folder,
        env={**kept, "HOME": str(folder), "NO_COLOR": "1", **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


def _closure(requirements: list[str]) -> dict[str, Distribution]:
    """The installed distributions that the requirements need, all the way down."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(Requirement(text), "") for text in requirements]
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        found.setdefault(name, distribution(name))
        for wanted in {"", *requirement.extras}:
            if (name, wanted) not in seen:
                seen.add((name, wanted))
                needs = found[name].requires or []
                waiting += [(Requirement(text), wanted) for text in needs]
    return found


def _link(dist: Distribution, site_packages: Path) -> None:
    """Make what `dist` installed visible in another environment."""
    for top in {file.parts[0] for file in dist.files or []} - {"..", "__pycache__"}:
        link = site_packages / top
        if not link.exists():
            link.symlink_to(Path(str(dist.locate_file(top))))


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", ROOT]
    _run([*build, "--outdir", folder], folder, PATH=os.environ["PATH"])
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` folder of an environment with the wheel and its requirements."""
    folder = tmp_path_factory.mktemp("environment")
    _run([sys.executable, "-m", "venv", "--without-pip", folder], folder)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python]
    _run([*pip, "install", "--no-deps", "--no-index", wheel], folder)

    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site_packages = Path(_run([python, "-c", ask], folder).stdout.strip())
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (n for n in archive.namelist() if n.endswith("/METADATA"))
        text = archive.read(metadata).decode()
    needed = re.findall(r"^Requires-Dist: (.*)$", text, re.MULTILINE)
    for dist in _closure(needed).values():
        _link(dist, site_packages)
    return folder / "bin"


def _files(folder: Path) -> set[str]:
    """Every file below `folder` that is source, not a by-product of running it."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_wheel_holds_the_two_packages_and_the_templates_and_nothing_else(
    wheel: Path,
) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    info = {name for name in names if ".dist-info/" in name}
    sources = {f"lightgen/{name}" for name in _files(ROOT / "lightgen")}
    runtime = _files(ROOT / "runtime" / "lightgen_runtime")
    sources |= {f"lightgen_runtime/{name}" for name in runtime}
    sources |= {f"lightgen/_templates/{name}" for name in _files(ROOT / "templates")}

    assert names - info == sources
    assert {"lightgen/py.typed", "lightgen_runtime/py.typed"} <= names
    assert "lightgen/_templates/vision/copier.yml" in names
    assert any(name.endswith("/LICENSE") for name in info)


def test_environment_lacks_what_the_wheel_does_not_ask_for(
    environment: Path, tmp_path: Path
) -> None:
    ask = (
        "from importlib.util import find_spec as f; print(f('pytest'), f('lightning'))"
    )
    done = _run([environment / "python", "-c", ask], tmp_path)
    assert done.stdout.split() == ["None", "None"]


def test_wheel_and_both_packages_have_one_version(
    wheel: Path, environment: Path, tmp_path: Path
) -> None:
    ask = "import lightgen as g, lightgen_runtime as r; print(g.__version__, r.__version__)"
    packages = _run([environment / "python", "-c", ask], tmp_path).stdout.split()
    printed = _run([environment / "lightgen", "--version"], tmp_path).stdout.split()
    assert {*packages, printed[-1]} == {wheel.name.split("-")[1]}


def test_wheel_trains_a_generated_project_in_an_empty_environment(
    environment: Path, tmp_path: Path
) -> None:
    search = f"{environment}{os.pathsep}/usr/bin{os.pathsep}/bin"

    def lightgen(*arguments: str, folder: Path = tmp_path) -> str:
        command = [environment / "lightgen", *arguments]
        return _run(command, folder, PATH=search).stdout

    ask = "import lightgen as g, lightgen_runtime as r; print(g.__file__, r.__file__)"
    installed = _run([environment / "python", "-c", ask], tmp_path).stdout.split()
    assert all(Path(file).is_relative_to(environment.parent) for file in installed)

    listed = lightgen("templates", "list")
    assert "vision" in listed
    assert "tabular" in listed

    lightgen("new", "mymodel", "--defaults")
    project = tmp_path / "mymodel"
    trained = lightgen("train", "--trainer.max_epochs", "1", "--json", folder=project)
    summary = json.loads(trained.splitlines()[-1])
    assert summary["status"] == "completed"
    assert summary["epochs"] == 1
    assert (project / summary["best_checkpoint"]).is_file()

    tested = lightgen("test", "--ckpt", "best", "--json", folder=project)
    metrics = json.loads(tested.splitlines()[-1])["metrics"]
    accuracy = next(value for key, value in metrics.items() if "acc" in key)
    assert 0.3 < accuracy <= 1.0

    module = project / "src/mymodel/module.py"
    before = module.read_bytes()
    change = ["regen", "optimizer", "--optimizer", "sgd", "--schedule", "cosine"]
    changed = json.loads(lightgen(*change, "--json", folder=project))
    assert "src/mymodel/module.py" in changed["written"]
    assert b"torch.optim.SGD(" in module.read_bytes()
    rates = json.loads(lightgen("lr", "--json", folder=project))
    assert rates["optimizers"][0]["class"] == "SGD"
    assert rates["curve"][0][1] > rates["curve"][-1][1]
    lightgen("undo", folder=project)
    assert module.read_bytes() == before

    net = tmp_path / "net.py"
    net.write_text(HAND_WRITTEN)
    adopted = json.loads(lightgen("adopt", "net.py", "--json"))
    assert adopted["spec"] == {"optimizer": ["adam:lr=0.1"]}
