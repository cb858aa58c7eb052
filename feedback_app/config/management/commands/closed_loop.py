"""`python manage.py closed_loop`: the whole loop without a browser, with its proof."""

import json
import math
import os
import time
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from feedback_app.closed_loop.people import PageError
from feedback_app.closed_loop.proof import ClosedLoop, LoopBroken, Proof
from feedback_app.closed_loop.size import LoopSize, Speed, minutes_for, seconds_for, size_for
from feedback_app.closed_loop.speed import SpeedUnknown, speed_measure
from feedback_app.feedback.models import Project
from feedback_app.localstack.prepare import prepare_model, prepare_site
from feedback_app.localstack.stack import Stack, StackError, running
from feedback_app.serving.engine.client import EngineError

#: Options that set a part of the size instead of what the measured speed suggests.
PARTS = {
    "annotators": ("annotators", "simulated annotators"),
    "prompts": ("prompts", "prompts whose answers are voted on"),
    "answers": ("answers_per_prompt", "answers to each of them"),
    "epochs": ("epochs", "passes of training over the votes"),
    "unseen": ("unseen_prompts", "prompts that base and live are compared on"),
}


BUDGET_MINUTES = 25.0


class Command(BaseCommand):
    help = (
        "Simulated annotators vote over HTTP, the real worker trains, the real engine serves: "
        "prints the up-rate before and after with the guards. Exit code 0 only if it rose "
        "significantly and no guard fell."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--project", help="slug of the new project (default: loop, loop-2 …)")
        parser.add_argument("--url", help="use the processes that serve this URL")
        parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
        parser.add_argument(
            "--budget",
            type=minutes,
            default=BUDGET_MINUTES,
            metavar="MINUTES",
            help="choose the size that fits into this many minutes (default: %(default)g)",
        )
        for option, (field, what) in PARTS.items():
            most = getattr(LoopSize(), field)
            parser.add_argument(
                f"--{option}", type=int, help=f"{what}, whatever the budget (without: ≤ {most})"
            )

    def handle(self, *args: Any, **options: Any) -> None:
        self.started = time.monotonic()
        self.shown = 0.0
        self.ended = ("", 0)
        call_command("migrate", verbosity=0, interactive=False)
        slug = options["project"] or free_slug("loop")
        if Project.objects.filter(slug=slug).exists():
            raise CommandError(f"There is a project {slug} already: choose another --project.")
        try:
            with self.site(options["url"]) as url:
                self.say("Measuring how fast this machine answers and trains …")
                speed = speed_measure(base_model=settings.BASE_MODEL)
                given = {
                    field: options[option]
                    for option, (field, _) in PARTS.items()
                    if options[option] is not None
                }
                size = replace(size_for(speed, options["budget"]), **given)
                for line in plan_lines(size, speed, options["budget"]):
                    self.say(line)
                proof = ClosedLoop(
                    url=url,
                    slug=slug,
                    size=size,
                    speed=speed,
                    say=self.say,
                    progress=self.progress,
                ).run(base_model=settings.BASE_MODEL)
        except (LoopBroken, PageError, EngineError, SpeedUnknown, StackError) as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            raise CommandError("Stopped. The project is kept.", returncode=130) from None
        self.table(proof)
        if options["json"]:
            options["json"].write_text(json.dumps(proof.as_json(), indent=1) + "\n")
        if not proof.held:
            raise CommandError("The loop is not proven: see the lines marked with ✗.")
        self.stdout.write(self.style.SUCCESS("The loop is closed: live beats base, guards held."))

    @contextmanager
    def site(self, url: str | None) -> Iterator[str]:
        """Yield the URL to use: the given one, that of `make demo`, or that of a new stack."""
        here = running(settings.VAR)
        if url is not None:
            yield url
        elif here is not None:
            use_engine(here.engine_url)
            yield here.url
        else:
            stack = Stack(say=self.say)
            prepare_model(self.say, base_model=settings.BASE_MODEL, var=settings.VAR)
            prepare_site()
            self.say(f"Starting {', '.join(stack.plan.commands)} …")
            with stack:
                use_engine(stack.engine_url)
                yield stack.url

    def say(self, text: str) -> None:
        self.stdout.write(f"[{time.monotonic() - self.started:5.0f} s] {text}")
        self.stdout.flush()

    def progress(self, what: str, done: int, total: int, step: float, whole: float) -> None:
        """Print a line every ten seconds, and one when a part is done."""
        now = time.monotonic()
        ended = done == total and self.ended != (what, total)
        if total and (ended or now - self.shown >= 10):
            self.shown = now
            self.ended = (what, total) if done == total else ("", 0)
            left = f"{duration(step)} left of this step, {duration(whole)} in all"
            self.say(f"  {what}: {done} of {total} ({left})")

    def table(self, proof: Proof) -> None:
        before, after, rise = proof.before, proof.after, proof.gain
        mark = "✓" if rise.significant else "✗"
        lines = [
            "",
            f"{proof.votes} votes ({proof.flipped} flipped as noise), adapter {proof.adapter}, "
            f"{len(before.flat)} answers a side to {len(before.findings)} unseen prompts",
            "",
            f"  up-rate   base {before.up_rate}",
            f"            live {after.up_rate}",
            f"{mark} rise      {rise.value * 100:+.0f} points ({rise.low * 100:+.0f} to "
            f"{rise.high * 100:+.0f}, 95 %, resampled by prompt)",
            "",
            f"  {'guard':<16} {'before':>9} {'after':>9}   limit",
        ]
        lines += [
            f"{'✓' if guard.held else '✗'} {guard.name:<16} {guard.before:>9.3f} "
            f"{guard.after:>9.3f}   {guard.limit}"
            for guard in proof.guards
        ]
        minutes = ", ".join(f"{step} {spent / 60:.1f}" for step, spent in proof.seconds.items())
        lines += ["", f"  minutes: {minutes}", ""]
        self.stdout.write("\n".join(lines))


def minutes(text: str) -> float:
    """Return a number of minutes above zero. Raises ArgumentTypeError."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 < found < math.inf:
        raise ArgumentTypeError(f"{text!r} is not a number of minutes above 0")
    return found


def duration(seconds: float) -> str:
    """Return whole seconds below a minute and a half, whole minutes above."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def plan_lines(size: LoopSize, speed: Speed, budget: float) -> list[str]:
    """Return the lines that describe the measured speed, the size and the expected duration."""
    expected = minutes_for(size, speed)
    steps = ", ".join(f"{step} {duration(s)}" for step, s in seconds_for(size, speed).items())
    lines = [
        f"Measured: {speed.answer_tokens:.0f} tokens/s with several answers at a time, "
        f"{speed.example_seconds:.2f} s for an example in an epoch of training.",
        f"{size.prompts} prompts with {size.answers_per_prompt} answers, {size.epochs} epochs, "
        f"{size.unseen_prompts} unseen prompts with {size.answers_per_unseen} answers a side.",
        f"Expected: about {expected:.0f} minutes ({steps}).",
    ]
    if expected > budget:
        lines.append(
            f"That is more than the budget of {budget:g} minutes. A smaller size would be unlikely "
            "to show a significant rise, so this one runs; set --prompts, --answers, --epochs "
            "or --unseen to run less, or a larger --budget."
        )
    return lines


def free_slug(stem: str) -> str:
    """`stem`, or the first of `stem-2`, `stem-3` … that no project has."""
    taken = set(Project.objects.filter(slug__startswith=stem).values_list("slug", flat=True))
    number = 2
    slug = stem
    while slug in taken:
        slug, number = f"{stem}-{number}", number + 1
    return slug


def use_engine(url: str) -> None:
    """Use the engine of the stack for the measurements."""
    if settings.BASE_MODEL in settings.ENGINES and "ENGINES" not in os.environ:
        settings.ENGINES[settings.BASE_MODEL] = url
