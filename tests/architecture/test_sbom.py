"""The bill of materials names every package, and the images that contain it."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from django.conf import settings

from tools import sbom


def test_component_says_which_images_contain_it() -> None:
    bom = {"components": [{"name": "Django"}, {"name": "torch"}, {"name": "pytest"}]}
    images = {"web": {"django"}, "trainer": {"django", "torch"}}

    django, torch, tests = sbom.with_scopes(bom, images)["components"]

    assert [one["value"] for one in django["properties"]] == ["web", "trainer"]
    assert [one["value"] for one in torch["properties"]] == ["trainer"]
    assert (django["scope"], torch["scope"], tests["scope"]) == ("required", "required", "excluded")


def test_extras_and_dependencies_of_dependencies_are_followed() -> None:
    found = sbom.installed_with(["django-allauth[mfa]"])
    assert {"django-allauth", "django", "sqlparse", "fido2"} <= found
    assert "fido2" not in sbom.installed_with(["django-allauth"])


@pytest.mark.long
def test_bill_of_this_environment_is_written(tmp_path: Path) -> None:
    target = tmp_path / "sbom.json"
    command = [sys.executable, "tools/sbom.py", str(target)]

    subprocess.run(command, cwd=settings.BASE_DIR, check=True)

    bom = json.loads(target.read_text())
    assert bom["bomFormat"] == "CycloneDX"
    assert bom["metadata"]["component"]["name"] == "prospect"
    found = {one["name"].lower(): one for one in bom["components"]}
    assert found["django"]["version"] == version("django")
    assert found["django"]["licenses"]
    assert found["django"]["purl"].startswith("pkg:pypi/django@")
