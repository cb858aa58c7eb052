"""Take the screenshots of docs/guides again: `.venv/bin/python tools/screenshots.py`.

Runs the browser test that fills a project and opens its pages; needs Chromium, as `make test`.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEST = "tests/browser/test_guides.py"


def main() -> int:
    images = ROOT / "docs" / "guides" / "images"
    chromium = subprocess.run(
        [sys.executable, "tools/chromium.py"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    environment = {
        **os.environ,
        "PROSPECT_SCREENSHOTS": str(images),
        "PROSPECT_CHROMIUM": chromium.stdout.strip(),
    }
    return subprocess.call([sys.executable, "-m", "pytest", "-q", TEST], cwd=ROOT, env=environment)


if __name__ == "__main__":
    sys.exit(main())
