"""docker-compose.yml, Procfile and .env.example match the code."""

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import pytest
import yaml
from django.conf import settings
from honcho.environ import parse_procfile

from feedback_app.config.threads import ANSWER_THREADS, PAGE_THREADS, UPLOAD_THREADS
from feedback_app.localstack.process import GRACE_SECONDS
from tests.architecture.commands import check
from trainer.engine.http.server import SHUTDOWN_SECONDS

pytestmark = pytest.mark.slow

ROOT = Path(settings.BASE_DIR)
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {n: service for n, service in SERVICES.items() if service["image"].startswith("prospect-")}
#: services that run once and end
STEPS = {"migrate", "prepare-model", "vllm-cache-owner"}
#: what replaces a service in the profile gpu
ON_GPUS = {"worker-gpu-cuda": "worker-gpu", "engine-vllm": "engine"}
PROCFILE = parse_procfile((ROOT / "Procfile").read_text()).processes
INTERPOLATION = re.compile(r"(?<!\$)\$\{(\w+)(:?[-?][^}]*)?\}")
#: variables that only docker-compose.yml uses
COMPOSE_ONLY = {
    "COMPOSE_PROFILES",
    "ENGINE_GPU",
    "ENGINE_GPU_MEMORY",
    "HF_TOKEN",
    "HTTPS_PORT",
    "HTTP_PORT",
    "MODEL_PATH",
    "POSTGRES_PASSWORD",
    "SITE_ADDRESS",
    "TRAINING_GPU",
    "VALKEY_PASSWORD",
    "VLLM_VERSION",
}
#: read by tempfile, the Hugging Face hub, tini and CUDA
READ_BY_OTHERS = {
    *("TMPDIR", "HF_TOKEN", "TINI_KILL_PROCESS_GROUP", "CUDA_VISIBLE_DEVICES"),
    # every client of S3
    *("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"),
}

#: refused in production; of one machine
LOCAL = {"DEBUG", "PORT"}


def split_shell(line: str) -> Iterator[list[str]]:
    """Return the words of each command of a line, as sh expands them without variables set;
    without those that only make a directory."""
    for command in line.split("&&"):
        words = subprocess.run(
            ["/bin/sh", "-c", f"set -- {command}\nprintf '%s\\n' \"$@\""],
            env={"PATH": os.defpath},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        if words[0] != "mkdir":
            yield words


def commands(service: dict[str, Any]) -> Iterator[list[str]]:
    """Return the commands of a service and its health check, with the defaults of variables."""

    def plain(word: str) -> str:
        return INTERPOLATION.sub(lambda found: (found[2] or "").lstrip(":-?"), word)

    command = [plain(word) for word in service["command"]]
    if command[:2] == ["sh", "-c"]:
        yield from split_shell(command[2])
    else:
        yield command
    kind, *test = service.get("healthcheck", {"test": ["NONE"]})["test"]
    if kind == "CMD":
        yield test
    elif kind == "CMD-SHELL":
        yield from split_shell(test[0].replace("$$", "$"))


@pytest.mark.parametrize("name", sorted(OURS))
def test_each_command_of_a_service_exists(name: str) -> None:
    found = list(commands(OURS[name]))
    assert found
    for argv in found:
        check(argv)


@pytest.mark.parametrize("name", sorted(PROCFILE))
def test_each_command_of_the_procfile_exists(name: str) -> None:
    found = list(split_shell(PROCFILE[name]))
    assert found
    for argv in found:
        check(argv)


@pytest.mark.parametrize(
    "argv",
    [
        ["uvicorn", "feedback_app.config.asgi:application", "--no-such-flag"],
        ["celery", "-A", "feedback_app.config", "worker", "--no-such-flag"],
        ["python", "-m", "trainer", "serve", "--model=m", "--artifacts=a", "--no-such-flag"],
        ["python", "manage.py", "no_such_command"],
        ["python", "tools/no_such_file.py"],
    ],
)
def test_wrong_command_is_detected(argv: Sequence[str]) -> None:
    with pytest.raises((SystemExit, AssertionError, KeyError, click.UsageError)):
        check(argv)


def test_same_processes_run_on_one_machine_and_in_production() -> None:
    processes = set(PROCFILE) - {"valkey"}
    assert processes == set(OURS) - STEPS - set(ON_GPUS)
    others = set(SERVICES) - processes - STEPS - set(ON_GPUS)
    assert others == {"caddy", "postgres", "valkey"}


def options_of(argv: Sequence[str]) -> dict[str, str]:
    """Return the options of a command, those of celery by their long names."""
    text = " ".join(argv).replace(" -A ", " --app ")
    return dict(re.findall(r"--([\w-]+)(?:[ =](?!--)(\S+))?", text))


@pytest.mark.parametrize("name", sorted(set(PROCFILE) - {"valkey"}))
def test_process_has_the_same_options_on_one_machine_and_in_production(name: str) -> None:
    [here] = split_shell(PROCFILE[name])
    there = next(commands(OURS[name]))
    assert here[0] == there[0]
    local, production = options_of(here), options_of(there)
    # addresses, paths, and what a machine with more cores and several workers has otherwise
    differ = {"host", "port", "model", "artifacts", "allowed-host"}
    differ |= {"artifact-cache", "artifact-cache-gb"}
    differ |= {"concurrency", "loglevel"}
    differ |= {"without-gossip", "without-mingle", "timeout-graceful-shutdown"}
    assert {k: v for k, v in local.items() if k not in differ} == {
        k: v for k, v in production.items() if k not in differ
    }


def test_each_profile_runs_every_process_once() -> None:
    for profile in ("cpu", "gpu"):
        started = {
            ON_GPUS.get(name, name)
            for name, service in SERVICES.items()
            if profile in service.get("profiles", [profile])
        }
        assert started - STEPS == set(PROCFILE) | {"caddy", "postgres"}
    for name, replaced in ON_GPUS.items():
        assert SERVICES[name]["profiles"] == ["gpu"]
        assert SERVICES[replaced]["profiles"] == ["cpu"]
    [url] = {OURS["web"]["environment"]["ENGINE_URL"]}
    asked = urlsplit(INTERPOLATION.sub(lambda found: found[2].removeprefix(":-"), url))
    vllm = SERVICES["engine-vllm"]
    assert asked.hostname in vllm["networks"]["default"]["aliases"]
    assert f"--port={asked.port}" in vllm["command"]
    assert vllm["environment"]["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True"
    # a .env without it starts neither training nor an engine
    assert "${COMPOSE_PROFILES:?" in (ROOT / "docker-compose.yml").read_text()


def test_compose_file_fits_the_specification() -> None:
    schema = json.loads((Path(__file__).parent / "schemas" / "compose-spec.json").read_text())
    import jsonschema  # 3 s, for this test alone

    validator = jsonschema.validators.validator_for(schema)(schema)
    assert [error.message for error in validator.iter_errors(COMPOSE)] == []
    broken = {**COMPOSE, "services": {"web": {"image": "x", "comand": []}}}
    assert not validator.is_valid(broken), "the schema accepts anything"


def test_only_caddy_publishes_ports() -> None:
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["caddy"]
    assert not [name for name, service in SERVICES.items() if "network_mode" in service]


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_container_is_locked_down(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "/tmp" in service["tmpfs"]  # noqa: S108 - a path in the container
    assert not service.get("privileged")
    allowed = {"caddy": ["NET_BIND_SERVICE"], "vllm-cache-owner": ["CHOWN"]}
    assert service.get("cap_add", []) == allowed.get(name, [])


def seconds(duration: str) -> int:
    return int(re.fullmatch(r"(\d+)s", duration)[1])  # type: ignore[index]


def test_services_get_the_time_that_their_processes_take_to_stop() -> None:
    long_running = {n: s for n, s in SERVICES.items() if n not in STEPS}
    grace = {name: seconds(service["stop_grace_period"]) for name, service in long_running.items()}
    web = options_of(OURS["web"]["command"])
    proxy = re.search(r"grace_period (\d+)s", (ROOT / "deploy" / "Caddyfile").read_text())
    assert proxy
    assert int(web["timeout-graceful-shutdown"]) < int(proxy[1]) < grace["caddy"]
    assert int(web["timeout-graceful-shutdown"]) < grace["web"]
    assert grace["engine"] > SHUTDOWN_SECONDS
    assert grace["worker-gpu"] > GRACE_SECONDS["worker-gpu"]
    assert grace["worker-gpu-cuda"] == grace["worker-gpu"]


def test_valkey_requires_its_password_everywhere() -> None:
    assert OURS["web"]["environment"]["REDIS_URL"].startswith("redis://:${VALKEY_PASSWORD:?")
    valkey = SERVICES["valkey"]
    assert valkey["environment"]["REDISCLI_AUTH"].startswith("${VALKEY_PASSWORD:?")
    assert "requirepass" in valkey["command"][-1]


def test_engine_and_model_get_no_secrets() -> None:
    secrets = {"SECRET_KEY", "DATABASE_URL", "REDIS_URL", "EMAIL_URL", "OIDC_SECRET"}
    for name in ("engine", "engine-vllm", "prepare-model"):
        assert not secrets & set(SERVICES[name]["environment"])


def test_every_queue_has_a_worker_in_both() -> None:
    queues = {settings.CELERY_TASK_DEFAULT_QUEUE}
    queues |= {route["queue"] for route in settings.CELERY_TASK_ROUTES.values()}
    for lines in (list(PROCFILE.values()), [" ".join(s["command"]) for s in OURS.values()]):
        served = {found for line in lines for found in re.findall(r"--queues[ =](\w+)", line)}
        assert served == queues
    for line in (PROCFILE["worker-gpu"], " ".join(OURS["worker-gpu"]["command"])):
        assert re.search(r"--concurrency[ =]1\b", line), "one run at a time on a GPU"


def test_every_variable_of_a_service_is_read_by_the_settings() -> None:
    for name, service in OURS.items():
        unknown = set(service["environment"]) - settings_variables() - READ_BY_OTHERS
        assert not unknown, f"{name}: nothing reads {unknown}"


def test_every_setting_reaches_the_services() -> None:
    for name, service in OURS.items():
        if "DATABASE_URL" in service["environment"]:
            ignored = settings_variables() - set(service["environment"]) - LOCAL
            assert not ignored, f"{name}: a line in .env for {ignored} would change nothing"


def test_variables_in_the_example_are_explained_and_exist() -> None:
    text = (ROOT / ".env.example").read_text()
    explained = re.findall(r"^#?([A-Z_]+)=", text, re.MULTILINE)
    assert len(explained) == len(set(explained))
    asked = {
        found[1] for found in INTERPOLATION.finditer((ROOT / "docker-compose.yml").read_text())
    }
    assert asked - COMPOSE_ONLY <= settings_variables() | procfile_variables()
    # each setting has its own comment above it, in sentences
    assert set(explained) == settings_variables() | COMPOSE_ONLY | {
        "PORT",
        "ENGINE_PORT",
        "ENGINE_QUANTISATION",
        "VALKEY_PORT",
    }
    assert asked <= set(explained)
    for block in text.split("\n\n"):
        if re.search(r"^#?[A-Z_]+=", block, re.MULTILINE):
            assert block.lstrip().startswith("# "), f"no comment above: {block}"


def test_secrets_have_no_default() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    for name in ("SECRET_KEY", "POSTGRES_PASSWORD", "VALKEY_PASSWORD", "SITE_ADDRESS", "EMAIL_URL"):
        uses = [found for found in INTERPOLATION.finditer(text) if found[1] == name]
        assert uses
        assert all(found[2].startswith(":?") for found in uses), f"{name} has a default"


@pytest.mark.slow
def test_settings_load_with_the_environment_of_a_service() -> None:
    given = {
        "SECRET_KEY": "only-for-this-test-0123456789-0123456789",
        "SITE_ADDRESS": "prospect.example.com",
        "EMAIL_URL": "smtp://mail.example.com",
        "POSTGRES_PASSWORD": "p",
        "VALKEY_PASSWORD": "v",
    }

    def fill(value: str) -> str:
        return INTERPOLATION.sub(
            lambda found: given.get(found[1], (found[2] or "").removeprefix(":-")), value
        )

    # a variable without a value is left out unless .env has it
    given_to_web = OURS["web"]["environment"].items()
    env = {name: fill(value) for name, value in given_to_web if value is not None}
    assert env["ALLOWED_HOSTS"] == "prospect.example.com"
    done = subprocess.run(
        [sys.executable, "manage.py", "check", "--fail-level", "WARNING"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_engine_accepts_the_names_under_which_the_services_ask_it() -> None:
    asking = [s["environment"] for s in OURS.values() if "DATABASE_URL" in s["environment"]]
    [url] = {environment["ENGINE_URL"] for environment in asking}
    asked = INTERPOLATION.sub(lambda found: found[2].removeprefix(":-"), url)
    assert f"--allowed-host={urlsplit(asked).hostname}" in SERVICES["engine"]["command"]
    assert "--site" not in SERVICES["engine"]["healthcheck"]["test"], "it accepts no public name"
    assert "--site" in SERVICES["web"]["healthcheck"]["test"]


def test_every_dependency_and_volume_of_a_service_exists() -> None:
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other], (
                    f"{name} depends on {other}, which has no health check"
                )
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./"):
                assert (ROOT / source).stat().st_mode & 0o444 == 0o444, "the container reads it"
            else:
                assert source in COMPOSE["volumes"]
        assert "healthcheck" in service or service.get("restart") == "no", name


def settings_variables() -> set[str]:
    """Return every variable that settings.py reads from the environment."""
    tree = ast.parse((ROOT / "feedback_app" / "config" / "settings.py").read_text())
    return {
        str(node.args[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "env"
        and node.args
        and isinstance(node.args[0], ast.Constant)
    }


def procfile_variables() -> set[str]:
    """Return every variable that a command of the Procfile uses."""
    return set(re.findall(r"\$\{(\w+)", (ROOT / "Procfile").read_text()))


def test_postgres_accepts_a_connection_of_every_thread() -> None:
    options = " ".join(SERVICES["postgres"]["command"])
    allowed = int(re.search(r"max_connections=(\d+)", options)[1])  # type: ignore[index]
    web = " ".join(SERVICES["web"]["command"])
    workers = int(re.search(r"--workers=(\d+)", web)[1])  # type: ignore[index]
    threads = PAGE_THREADS + ANSWER_THREADS + UPLOAD_THREADS
    # the rest is for Celery, migrations and a person with psql
    assert workers * threads + 20 <= allowed
