"""Adds to the wheel what lies beside the packages; everything else is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
BUNDLED = ("templates", "static", "Procfile", "manage.py", "tools/valkey_server.py")


class BuildWithFiles(build_py):
    """Copies templates, static files and the Procfile to feedback_app/bundled."""

    def run(self):
        super().run()
        if self.editable_mode:
            return
        bundled = Path(self.build_lib) / "feedback_app" / "bundled"
        for name in BUNDLED:
            source, target = ROOT / name, bundled / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, dirs_exist_ok=True)
            else:
                shutil.copy2(source, target)


setup(cmdclass={"build_py": BuildWithFiles})
