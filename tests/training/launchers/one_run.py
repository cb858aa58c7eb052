"""A worker process that executes one run: `python -m tests.training.launchers.one_run RUN ROOT`.

ROOT holds models/ and artifacts/. The launcher is that of TRAINER_LAUNCHER.
"""

import sys
from pathlib import Path

import django


def main(pk: int, root: Path) -> None:
    from django.conf import settings

    from feedback_app.training.launchers.selection import launcher_selected
    from feedback_app.training.runs.claims import run_claim
    from feedback_app.training.runs.execution.sequence import run_execute

    settings.MODELS_ROOT, settings.ARTIFACT_ROOT = root / "models", root / "artifacts"
    claim = run_claim(pk)
    assert claim is not None
    run_execute(claim, launcher_selected(claim.row.project))


if __name__ == "__main__":
    django.setup()
    main(int(sys.argv[1]), Path(sys.argv[2]))
