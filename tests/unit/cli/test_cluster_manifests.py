"""What Kubernetes reads in the manifests: names that agree, and the known traps."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import Cli


def manifests(run_cli: Cli, project: Path, *options: str) -> list[dict[str, Any]]:
    image = ["--image", "registry.example.com/mymodel:1"]
    result = run_cli("cluster", "kubernetes", *image, *options)
    assert result.code == 0, result.err
    text = (project / "cluster/kubernetes.yaml").read_text()
    found = list(yaml.safe_load_all(text))
    assert all(isinstance(each, dict) for each in found)
    return found


def container_of(pod: dict[str, Any]) -> dict[str, Any]:
    (container,) = pod["containers"]
    assert isinstance(container, dict)
    return container


def started(container: dict[str, Any]) -> list[str]:
    """Return the words of the command, as a shell would split them."""
    shell, flag, script = container["command"]
    assert (shell, flag) == ("sh", "-c")
    words = shlex.split(script.replace("\\\n", " "))
    assert words[:4] == ["exec", "python", "-m", "torch.distributed.run"]
    return words


def value(words: list[str], option: str) -> str:
    return words[words.index(option) + 1]


def test_pods_find_the_first_one_by_its_name(run_cli: Cli, project: Path) -> None:
    service, job = manifests(run_cli, project, "--nodes", "2", "--namespace", "ml")
    assert (service["apiVersion"], service["kind"]) == ("v1", "Service")
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    name = job["metadata"]["name"]
    assert {each["metadata"]["namespace"] for each in (service, job)} == {"ml"}
    assert service["metadata"]["name"] == name
    # Headless, for the pods of this job, before they count as ready.
    assert service["spec"] == {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": {"job-name": name},
    }
    pod = job["spec"]["template"]["spec"]
    assert pod["subdomain"] == name
    words = started(container_of(pod))
    assert value(words, "--rdzv-endpoint") == f"{name}-0.{name}:29400"
    assert value(words, "--rdzv-conf").startswith("is_host=$((JOB_COMPLETION_INDEX ==")


def test_pods_on_cpus_ask_for_no_gpus(run_cli: Cli, project: Path) -> None:
    _, job = manifests(run_cli, project, "--devices", "2", "--no-gpus")
    assert "resources" not in container_of(job["spec"]["template"]["spec"])
    options = ["--memory", "8Gi", "--cpus-per-device", "2"]
    _, job = manifests(run_cli, project, *options)
    container = container_of(job["spec"]["template"]["spec"])
    assert container["resources"] == {
        "limits": {"memory": "8Gi"},
        "requests": {"cpu": "4"},
    }


def test_there_is_a_pod_for_each_machine(run_cli: Cli, project: Path) -> None:
    _, job = manifests(run_cli, project, "--nodes", "3", "--devices", "8")
    spec = job["spec"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"] == 3
    container = container_of(spec["template"]["spec"])
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 8}
    words = started(container)
    assert value(words, "--nnodes") == value(words, "--trainer.num_nodes") == "3"
    assert value(words, "--nproc-per-node") == value(words, "--trainer.devices") == "8"
    assert value(words, "--resume") == "auto"
    assert container["workingDir"] == "/workspace"
    assert {"name": "PYTHONPATH", "value": "src"} in container["env"]


def test_failed_pods_are_made_anew(run_cli: Cli, project: Path) -> None:
    options = ["--nodes", "2", "--restarts", "5"]
    _, job = manifests(run_cli, project, *options)
    spec = job["spec"]
    assert spec["backoffLimit"] == 10
    # Only then may a policy say that an eviction is no failure.
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert rule["action"] == "Ignore"
    assert rule["onPodConditions"] == [{"type": "DisruptionTarget"}]
    words = started(container_of(spec["template"]["spec"]))
    assert value(words, "--max-restarts") == "5"


def test_processes_have_time_to_save(run_cli: Cli, project: Path) -> None:
    _, job = manifests(run_cli, project)
    pod = job["spec"]["template"]["spec"]
    (shutdown,) = (
        int(each["value"])
        for each in container_of(pod)["env"]
        if each["name"] == "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"
    )
    assert 30 < shutdown < pod["terminationGracePeriodSeconds"]


def test_volumes_are_mounted_where_they_are_needed(run_cli: Cli, project: Path) -> None:
    options = ["--workdir", "/app/", "--claim", "shared", "--shared-memory", "64Gi"]
    options += ["--memory", "200Gi", "--cpus-per-device", "4", "--devices", "2"]
    _, job = manifests(run_cli, project, *options)
    pod = job["spec"]["template"]["spec"]
    container = container_of(pod)
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    assert mounts == {"runs": "/app/runs", "shared-memory": "/dev/shm"}
    volumes = {each.pop("name"): each for each in pod["volumes"]}
    assert volumes == {
        "runs": {"persistentVolumeClaim": {"claimName": "shared"}},
        "shared-memory": {"emptyDir": {"medium": "Memory", "sizeLimit": "64Gi"}},
    }
    assert container["resources"] == {
        "limits": {"nvidia.com/gpu": 2, "memory": "200Gi"},
        "requests": {"cpu": "8"},
    }


def test_kubeflow_starts_the_same_program(run_cli: Cli, project: Path) -> None:
    options = ["--kind", "pytorchjob", "--nodes", "2", "--restarts", "1"]
    (job,) = manifests(run_cli, project, *options)
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "PyTorchJob")
    assert job["spec"]["elasticPolicy"] == {
        "rdzvBackend": "c10d",
        "minReplicas": 2,
        "maxReplicas": 2,
        "maxRestarts": 1,
    }
    worker = job["spec"]["pytorchReplicaSpecs"]["Worker"]
    assert worker["replicas"] == 2
    container = container_of(worker["template"]["spec"])
    assert container["name"] == "pytorch"  # by which the operator knows it
    words = started(container)
    assert value(words, "--rdzv-endpoint") == "mymodel-worker-0:23456"
    assert words[-2:] == ["--resume", "auto"]


@pytest.mark.parametrize("name", ["on", "null", "y", "123", "1e3"])
def test_names_stay_strings(name: str, run_cli: Cli, project: Path) -> None:
    job_name = name if name.isalpha() else "job"
    options = ["--name", job_name, "--namespace", name, "--claim", name]
    service, job = manifests(run_cli, project, *options)
    pod = job["spec"]["template"]["spec"]
    assert [
        job["metadata"]["name"],
        service["spec"]["selector"]["job-name"],
        pod["subdomain"],
    ] == [job_name] * 3
    (claim,) = (v for v in pod["volumes"] if v["name"] == "runs")
    found = [
        job["metadata"]["namespace"],
        claim["persistentVolumeClaim"]["claimName"],
    ]
    assert found == [name] * 2


def test_package_gives_a_name_that_the_cluster_takes(run_cli: Cli, work: Path) -> None:
    from lightgen.cluster.kubernetes import KubernetesJob

    text = KubernetesJob(image="a/b").text("My_model_2")
    names = re.findall(r"^  name: (.*)$", text, re.MULTILINE)
    assert names == ["my-model-2"] * 2
    assert "-m My_model_2 fit" in text
