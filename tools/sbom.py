"""Write the software bill of materials: `.venv/bin/python tools/sbom.py var/sbom.json`.

CycloneDX JSON of every package in this interpreter's environment, with licences. The scope of a
component is `required` if one of the images installs it (the property `prospect:image` says
which), else `excluded`: it is there for tests only.
"""

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from tools.image_requirements import requirements  # noqa: E402

IMAGES = ("web", "trainer", "trainer-cuda")


def installed_with(lines: Iterable[str]) -> set[str]:
    """Return the packages that pip installs for requirements, by the metadata of those here."""
    found: set[str] = set()
    seen: set[str] = set()
    waiting = [Requirement(line) for line in lines]
    while waiting:
        requirement = waiting.pop()
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        try:
            needed = [Requirement(line) for line in requires(requirement.name) or []]
        except PackageNotFoundError:
            continue  # only other platforms or Pythons need it
        found.add(canonicalize_name(requirement.name))
        extras = requirement.extras or {""}
        waiting += [
            one
            for one in needed
            if one.marker is None or any(one.marker.evaluate({"extra": name}) for name in extras)
        ]
    return found


def with_scopes(bom: dict, images: dict[str, set[str]]) -> dict:
    """Return the bill with scope and images of each component."""
    for component in bom["components"]:
        name = canonicalize_name(component["name"])
        using = [image for image, packages in images.items() if name in packages]
        component["scope"] = "required" if using else "excluded"
        component["properties"] = [
            *component.get("properties", []),
            *({"name": "prospect:image", "value": image} for image in using),
        ]
    return bom


def main(target: Path) -> int:
    """Write the bill; return the exit code."""
    target.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--pyproject", "pyproject.toml"]
    command += ["--output-format", "JSON", "--output-reproducible", "--output-file", str(target)]
    done = subprocess.run([*command, sys.executable], cwd=ROOT, check=False)
    if done.returncode:
        return done.returncode
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    images = {image: installed_with(requirements(project, image)) for image in IMAGES}
    bom = with_scopes(json.loads(target.read_text()), images)
    target.write_text(json.dumps(bom, indent=2) + "\n")
    required = sum(component["scope"] == "required" for component in bom["components"])
    print(
        f"{target}: {required} packages in images, {len(bom['components']) - required} for tests."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
