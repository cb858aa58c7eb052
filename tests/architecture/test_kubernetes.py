"""deploy/kubernetes fits the schemas of Kubernetes and runs what docker-compose.yml runs."""

import importlib
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.conf import settings

from tests.architecture.test_compose import (
    INTERPOLATION,
    OURS,
    SERVICES,
    seconds,
    settings_variables,
)
from tests.architecture.test_images import STAGES

pytestmark = pytest.mark.slow

BASE = Path(settings.BASE_DIR) / "deploy" / "kubernetes"
KUSTOMIZATION = yaml.safe_load((BASE / "kustomization.yaml").read_text())
GPU = yaml.safe_load((BASE / "gpu" / "kustomization.yaml").read_text())
SECRET = yaml.safe_load((BASE / "secret.example.yaml").read_text())


def documents(names: list[str], directory: Path = BASE) -> list[dict[str, Any]]:
    return [one for name in names for one in yaml.safe_load_all((directory / name).read_text())]


RESOURCES = documents(KUSTOMIZATION["resources"])
PODS = {
    one["metadata"]["name"]: one["spec"]["template"]["spec"]
    for one in RESOURCES
    if one["kind"] in {"Deployment", "Job"}
}


def named(kind: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in RESOURCES if one["kind"] == kind}


def plain(words: list[str]) -> list[str]:
    """Return the words of a command of compose with the defaults of its variables."""
    return [INTERPOLATION.sub(lambda found: (found[2] or "").lstrip(":-?"), w) for w in words]


def test_every_file_is_part_of_the_base_or_of_the_component() -> None:
    used = {BASE / name for name in KUSTOMIZATION["resources"]}
    used |= {BASE / "gpu" / patch["path"] for patch in GPU["patches"]}
    others = {"kustomization.yaml", "secret.example.yaml"}
    assert {path for path in BASE.rglob("*.yaml") if path.name not in others} == used


@pytest.fixture(scope="session")
def kubernetes_validate() -> Any:
    """The validator, whose import takes seconds that collecting all tests would pay."""
    return importlib.import_module("kubernetes_validate")


@pytest.mark.parametrize(
    "resource", [*RESOURCES, SECRET], ids=lambda one: f"{one['kind']}-{one['metadata']['name']}"
)
def test_resource_fits_the_schema_of_kubernetes(
    resource: dict[str, Any], kubernetes_validate: Any
) -> None:
    kubernetes_validate.validate(resource, "1.30", strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**resource, "metadata": {"nam": "x"}}, "1.30", strict=True)


def test_every_service_has_a_deployment_with_the_same_command() -> None:
    assert set(PODS) == {"web", "worker-default", "worker-gpu", "beat", "engine", "migrate"}
    for name, pod in PODS.items():
        [container] = pod["containers"]
        service = OURS[name]
        assert "command" not in container, "it would replace tini"
        assert container["args"] == plain(service["command"]), name
        assert container["image"] == service["image"]
        for init in pod.get("initContainers", []):
            assert "command" not in init
            assert init["image"] == container["image"]
        if name != "migrate":
            grace = seconds(service["stop_grace_period"])
            assert pod["terminationGracePeriodSeconds"] >= grace
    [prepare] = PODS["engine"]["initContainers"]
    assert prepare["args"] == OURS["prepare-model"]["command"]
    images = {one["name"] for one in [*KUSTOMIZATION["images"], *GPU["images"]]}
    assert images == {f"prospect-{stage}" for stage in ("web", "trainer", "trainer-cuda")}
    assert {image.removeprefix("prospect-") for image in images} <= set(STAGES)


def test_beat_runs_once() -> None:
    beat = named("Deployment")["beat"]["spec"]
    assert (beat["replicas"], beat["strategy"]["type"]) == (1, "Recreate")


def test_component_for_gpus_has_the_flags_of_compose() -> None:
    worker, engine = documents([patch["path"] for patch in GPU["patches"]], BASE / "gpu")
    assert named("Deployment").keys() >= {worker["metadata"]["name"], engine["metadata"]["name"]}
    [trainer] = worker["spec"]["template"]["spec"]["containers"]
    assert trainer["image"] == OURS["worker-gpu-cuda"]["image"]
    [vllm] = engine["spec"]["template"]["spec"]["containers"]
    service = SERVICES["engine-vllm"]
    assert vllm["image"] == plain([service["image"]])[0]
    assert vllm["command"] == service["entrypoint"]
    assert vllm["args"] == plain(service["command"])
    for container in (trainer, vllm):
        assert container["resources"]["limits"]["nvidia.com/gpu"] == 1


@pytest.mark.parametrize("name", sorted(PODS))
def test_pod_is_locked_down(name: str) -> None:
    pod = PODS[name]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        assert container["securityContext"] == {
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }
        paths = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert paths == {"/data", "/tmp"}  # noqa: S108 - in the container
    [container] = pod["containers"]
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}
    assert "memory" in container["resources"]["limits"]


def test_environment_is_complete() -> None:
    given = named("ConfigMap")["prospect"]["data"] | SECRET["stringData"]
    assert not set(given) - settings_variables()
    required = {
        name: value
        for name, value in OURS["web"]["environment"].items()
        if value and (":?" in value or "${" not in value)
    }
    assert set(required) - {"TMPDIR"} <= set(given)
    assert not set(named("ConfigMap")["prospect"]["data"]) & set(SECRET["stringData"])
    host = given["ALLOWED_HOSTS"]
    [rule] = named("Ingress")["web"]["spec"]["rules"]
    assert rule["host"] == host
    for name in ("web", "worker-default", "worker-gpu", "beat", "migrate"):
        [container] = PODS[name]["containers"]
        sources = [source[kind]["name"] for source in container["envFrom"] for kind in source]
        assert sources == ["prospect", SECRET["metadata"]["name"]]
    assert "envFrom" not in PODS["engine"]["containers"][0], "the engine needs no secrets"


def test_services_and_probes_name_ports_that_exist() -> None:
    for name, service in named("Service").items():
        selected = service["spec"]["selector"]["app.kubernetes.io/name"]
        [container] = PODS[selected]["containers"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        [port] = service["spec"]["ports"]
        assert port["targetPort"] in ports
        assert f"--port={ports[port['targetPort']]}" in container["args"]
        assert {"readinessProbe", "livenessProbe", "startupProbe"} <= container.keys(), name
    engine = named("ConfigMap")["prospect"]["data"]["ENGINE_URL"]
    assert engine == f"http://engine:{named('Service')['engine']['spec']['ports'][0]['port']}"


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kustomize_builds_base_and_component(tmp_path: Path, kubernetes_validate: Any) -> None:
    shutil.copytree(BASE, tmp_path / "base", ignore=shutil.ignore_patterns("gpu"))
    shutil.copytree(BASE / "gpu", tmp_path / "gpu")
    overlay = {"resources": ["base"], "components": ["gpu"]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    done = subprocess.run(
        ["kubectl", "kustomize", tmp_path],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    built = list(yaml.safe_load_all(done.stdout))
    assert len(built) == len(RESOURCES)
    for resource in built:
        kubernetes_validate.validate(resource, "1.30", strict=True)
    images = set(re.findall(r"image: (\S+)", done.stdout))
    assert {image.split(":")[0] for image in images} == {
        "prospect-web",
        "prospect-trainer",
        "prospect-trainer-cuda",
        "vllm/vllm-openai",
    }
