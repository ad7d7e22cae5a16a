"""What a generated project does: its tests pass, and its default run learns."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lightgen.rendering.bundled import bundled_names

RenderTemplate = Callable[..., Path]

# Bounds on the test metrics of the default run: (name, smallest, largest).
GOALS: dict[str, list[tuple[dict[str, Any], str, float, float]]] = {
    "vision": [({}, "test_acc", 0.97, 1.0)],
    "tabular": [
        ({"task": "classification"}, "test_acc", 0.95, 1.0),
        # Always predicting the mean has a loss of 1.
        ({"task": "regression"}, "test_loss", 0.0, 0.6),
    ],
}
RUNS = [(template, *goal) for template, goals in GOALS.items() for goal in goals]
RUN_IDS = ["-".join([template, *answers.values()]) for template, answers, *_ in RUNS]
PROJECTS = [(template, answers) for template, answers, *_ in RUNS]

each_project = pytest.mark.parametrize(("template", "answers"), PROJECTS, ids=RUN_IDS)


def run_python(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a project as if the runtime were installed."""
    root = Path(__file__).parents[2]
    paths = [str(project / "src"), str(root), str(root / "runtime")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
    )


def run_json(project: Path, *arguments: str) -> dict[str, Any]:
    """Run a subcommand of a project; return what it reports on its last line."""
    done = run_python(
        project, "-m", "mymodel", *arguments, "--config", "config.yaml", "--json"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def test_every_template_has_a_goal() -> None:
    assert sorted(GOALS) == bundled_names()


@pytest.mark.slow
@each_project
def test_project_passes_its_own_tests(
    template: str, answers: dict[str, Any], render_template: RenderTemplate
) -> None:
    project = render_template(template, **answers)
    done = run_python(project, "-m", "pytest", "-q", "-W", "error", "-p", "no:xdist")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("template", "answers", "metric", "smallest", "largest"), RUNS, ids=RUN_IDS
)
def test_default_run_learns(
    template: str,
    answers: dict[str, Any],
    metric: str,
    smallest: float,
    largest: float,
    render_template: RenderTemplate,
) -> None:
    project = render_template(template, **answers)
    fit = run_json(project, "fit")
    assert fit["status"] == "completed"
    assert (project / fit["best_checkpoint"]).is_file()
    test = run_json(project, "test", "--ckpt_path", "best")
    assert smallest <= test["metrics"][metric] <= largest
    predict = run_json(project, "predict", "--ckpt_path", "best")
    assert (project / predict["run"] / "predictions.csv").is_file()
    exported = run_json(project, "export")["exported"]
    assert exported == f"{fit['run']}/model.safetensors"
    again = run_json(project, "test", "--ckpt_path", exported)
    assert again["metrics"] == test["metrics"]


@pytest.mark.slow
@each_project
def test_model_is_exported_as_a_program(
    template: str, answers: dict[str, Any], render_template: RenderTemplate
) -> None:
    project = render_template(template, **answers)
    run_json(project, "fit", "--trainer.max_epochs", "1")
    report = run_json(project, "export", "--format", "torch-export")
    program = torch.export.load(project / report["exported"]).module()
    (shape,) = [
        tuple(node.meta["val"].shape)[1:]
        for node in program.graph.nodes
        if node.op == "placeholder"
    ]
    assert len(program(torch.randn(7, *shape))) == 7


@pytest.mark.slow
@each_project
def test_two_runs_of_one_seed_end_with_equal_weights(
    template: str, answers: dict[str, Any], render_template: RenderTemplate
) -> None:
    project = render_template(template, **answers)
    weights, rows = [], []
    for _ in range(2):
        fit = run_json(project, "fit", "--trainer.max_epochs", "2")
        checkpoint = torch.load(project / fit["last_checkpoint"], weights_only=True)
        weights.append(checkpoint["state_dict"])
        rows.append((project / fit["run"] / "metrics.csv").read_text())
    assert rows[0] == rows[1]
    for name, expected in weights[0].items():
        assert torch.equal(weights[1][name], expected), name


@each_project
def test_missing_data_package_is_reported_with_its_command(
    template: str, answers: dict[str, Any], render_template: RenderTemplate
) -> None:
    project = render_template(template, **answers)
    without_package = "\n".join(
        [
            "import sys",
            "sys.modules['sklearn'] = None",
            "sys.argv = ['mymodel', 'fit', '--config', 'config.yaml']",
            "from mymodel.__main__ import main",
            "main()",
        ]
    )
    done = run_python(project, "-c", without_package)
    assert done.returncode != 0
    assert "pip install scikit-learn" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
