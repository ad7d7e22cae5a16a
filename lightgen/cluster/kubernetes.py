"""A manifest of Kubernetes: one pod a machine, each of which runs torchrun."""

from __future__ import annotations

from dataclasses import dataclass

from lightgen.cluster import values
from lightgen.cluster.job import Job, program
from lightgen.cluster.torchrun import (
    MEET_WITHIN_S,
    launch_options,
    program_options,
)
from lightgen.errors import JobOptionError, nearest

KINDS = ("job", "pytorchjob")
_PORT = 29400  # Source: the default of torchrun's c10d rendezvous
_KUBEFLOW_PORT = 23456  # Source: the port that its operator gives the pods' services
# A pod that is told to end saves first; torchrun kills its processes some time before the
# cluster kills it.
_GRACE_S = 120
_SHUTDOWN_S = 100


@dataclass(frozen=True)
class KubernetesJob(Job):
    """Options of a manifest.

    Attributes:
        image: Has the project in `workdir`, and Python with its packages.
        kind: "job", or "pytorchjob" of Kubeflow's Training Operator.
        name: Of the job, and of what belongs to it; "" for the package's.
        namespace: "" for that of whoever applies the manifest.
        claim: A PersistentVolumeClaim for `runs/`; "" for the name with `-runs` behind.
        workdir: The project's folder in the image.
        shared_memory: Size of `/dev/shm`, by which loaders hand over batches.
        memory: Of a pod; "" for no limit.
        cpus_per_device: Cores; 0 for no request.
        gpus: Whether a pod asks for a GPU for each of its devices.
        restarts: How often all processes are started again after one has failed.
    """

    image: str = ""
    kind: str = "job"
    name: str = ""
    namespace: str = ""
    claim: str = ""
    workdir: str = "/workspace"
    shared_memory: str = "16Gi"
    memory: str = ""
    cpus_per_device: int = 0
    gpus: bool = True
    restarts: int = 3

    command = "kubernetes"
    file = "cluster/kubernetes.yaml"

    def check(self) -> None:
        """See `Job`."""
        super().check()
        if self.kind not in KINDS:
            near = nearest(self.kind, KINDS)
            raise JobOptionError(
                f"{self.kind!r} is no kind of job",
                where="option --kind",
                accepted=" or ".join(KINDS),
                todo=f"--kind {near or KINDS[0]}",
            )
        if self.name:
            values.check_job_name("option --name", self.name)
        for name in ("namespace", "claim"):
            if value := getattr(self, name):
                values.check_dns_label(f"option --{name}", value)
        if self.image:
            values.check_image("option --image", self.image)
        values.check_folder("option --workdir", self.workdir)
        values.check_quantity("option --shared-memory", self.shared_memory)
        if self.memory:
            values.check_quantity("option --memory", self.memory)
        values.check_number("option --restarts", self.restarts, 0, "new starts")
        cores = "cores; 0 is no request"
        values.check_number("option --cpus-per-device", self.cpus_per_device, 0, cores)

    def start(self, package: str) -> list[str]:
        """See `Job`."""
        return [f"kubectl apply -f {self.file}"]

    def text(self, package: str) -> str:
        """See `Job`.

        Raises:
            JobOptionError: There is no image, or the package's name is no name there.
        """
        if not self.image:
            raise JobOptionError(
                "a job of Kubernetes needs an image",
                where="option --image",
                accepted="an image with the project in it, at --workdir",
                todo="--image registry.example.com/NAME:TAG",
            )
        name = self.name or values.as_job_name(package)
        values.check_job_name("option --name", name)
        namespace = ""
        if self.namespace:
            namespace = f"  namespace: {values.as_yaml(self.namespace)}\n"
        head = _HEAD.format(package=package, file=self.file, workdir=self.workdir)
        meta = f"metadata:\n  name: {values.as_yaml(name)}\n{namespace}"
        if self.kind == "pytorchjob":
            pod = self._pod(package, name, f"{name}-worker-0:{_KUBEFLOW_PORT}")
            restarts, nodes = self.restarts, self.nodes
            return head + _PYTORCHJOB.format(
                meta=meta, nodes=nodes, restarts=restarts, pod=_indented(pod, 10)
            )
        pod = self._pod(package, name, f"{name}-0.{name}:{_PORT}")
        limit = self.restarts * self.nodes
        return head + _JOB.format(
            meta=meta,
            name=values.as_yaml(name),
            nodes=self.nodes,
            limit=limit,
            pod=_indented(pod, 6),
        )

    def _pod(self, package: str, name: str, rendezvous: str) -> str:
        """Return what a pod is, from its `spec:` on."""
        is_job = self.kind == "job"
        conf = f"read_timeout={MEET_WITHIN_S}"
        hosting = "is_host=$((JOB_COMPLETION_INDEX == 0)),"
        subdomain = f"subdomain: {values.as_yaml(name)}\nrestartPolicy: Never\n"
        return _POD.format(
            subdomain=subdomain if is_job else "",
            grace=_GRACE_S,
            container="train" if is_job else "pytorch",
            image=values.as_yaml(self.image),
            workdir=self.workdir.rstrip("/"),
            shutdown=_SHUTDOWN_S,
            options=launch_options(self),
            name=name,
            rendezvous=rendezvous,
            conf=f'"{hosting}{conf}"' if is_job else conf,
            program=program(package, *program_options(self), "--resume", "auto"),
            resources=self._resources(),
            size=self.shared_memory,
            claim=values.as_yaml(self.claim or f"{name}-runs"),
        )

    def _resources(self) -> str:
        """Return what a pod asks for; "" if that is nothing."""
        cpus = self.cpus_per_device * self.devices
        limits = f"        nvidia.com/gpu: {self.devices}\n" if self.gpus else ""
        limits += f"        memory: {self.memory}\n" if self.memory else ""
        requests = f'        cpu: "{cpus}"\n' if cpus else ""
        parts = (("limits", limits), ("requests", requests))
        lines = "".join(f"      {name}:\n{part}" for name, part in parts if part)
        return f"    resources:\n{lines}" if lines else ""


def _indented(text: str, width: int) -> str:
    return "".join(f"{' ' * width}{line}\n" for line in text.splitlines())


_HEAD = """\
# Trains {package} in a cluster of Kubernetes:
#   kubectl apply -f {file}
# The image has the project in {workdir}. Without the claim, runs would be lost with the pods.
# `lightgen cluster kubernetes` changes its lines by options and keeps yours.

"""
_JOB = """\
# Gives the pods names by which they find the first one.
apiVersion: v1
kind: Service
{meta}spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector:
    job-name: {name}
---
apiVersion: batch/v1
kind: Job
{meta}spec:
  completionMode: Indexed
  completions: {nodes}
  parallelism: {nodes}
  backoffLimit: {limit}
  # A pod that the cluster takes away is made anew, and does not count.
  podFailurePolicy:
    rules:
      - action: Ignore
        onPodConditions:
          - type: DisruptionTarget
  template:
    spec:
{pod}"""
_PYTORCHJOB = """\
apiVersion: kubeflow.org/v1
kind: PyTorchJob
{meta}spec:
  elasticPolicy:
    rdzvBackend: c10d
    minReplicas: {nodes}
    maxReplicas: {nodes}
    maxRestarts: {restarts}
  pytorchReplicaSpecs:
    Worker:
      replicas: {nodes}
      restartPolicy: OnFailure
      template:
        spec:
{pod}"""
_POD = """\
{subdomain}terminationGracePeriodSeconds: {grace}
containers:
  - name: {container}
    image: {image}
    workingDir: {workdir}
    env:
      - name: PYTHONPATH
        value: src
      - name: TORCH_ELASTIC_SHUTDOWN_TIMEOUT
        value: "{shutdown}"
    command:
      - sh
      - -c
      - |
        exec python -m torch.distributed.run \\
          {options} \\
          --rdzv-backend c10d --rdzv-id {name} \\
          --rdzv-endpoint {rendezvous} \\
          --rdzv-conf {conf} \\
          {program}
{resources}    volumeMounts:
      - name: runs
        mountPath: {workdir}/runs
      - name: shared-memory
        mountPath: /dev/shm
volumes:
  - name: runs
    persistentVolumeClaim:
      claimName: {claim}
  # The default of 64 MB ends loaders with workers by a bus error.
  - name: shared-memory
    emptyDir:
      medium: Memory
      sizeLimit: {size}
"""
