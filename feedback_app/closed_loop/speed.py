"""Measurement of this machine's generation and training speed, in less than a minute."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from django.conf import settings

from feedback_app.closed_loop.size import Speed
from feedback_app.feedback.models import BASE_VERSION, Project
from feedback_app.feedback.projects.starter import starter_prompts, starter_text
from feedback_app.feedback.prompts.services import Message
from feedback_app.serving.engine.client import Engine, EngineError, Sampling, Streamed
from feedback_app.training.runs.config import RunConfig
from feedback_app.training.runs.execution.inputs import model_path

STREAMS = 8
#: Streams are read at most this long: a slow machine need not finish them.
STREAM_SECONDS = 20.0
#: Examples of the planned run: enough for the plan, in whole seconds, to be precise.
PLANNED = 100
PLAN_SECONDS = 600.0
#: Share of the planned work that is computed: the plan counts every example in full, but answers to
#: one prompt share it, and all share the system prompt. A step of 16 took 13 s instead of 22.
COMPUTED = 0.6


class SpeedUnknown(Exception):
    """The speed could not be measured; the message says why."""


def speed_measure(*, base_model: str) -> Speed:
    """Have the engine answer some prompts, and the trainer plan a run on the answers.

    Raises EngineError if the engine fails, SpeedUnknown if the plan does.
    """
    project = Project(base_model=base_model, system_prompt=starter_text("system_prompt.txt"))
    prompts = [messages for _, messages in islice(starter_prompts(), STREAMS)]
    began = time.monotonic()
    answers = answers_read(project, prompts, until=began + STREAM_SECONDS)
    tokens = sum(len(answer.token_ids) for answer in answers)
    rate = tokens / (time.monotonic() - began)
    if not tokens:
        raise EngineError(
            f"The engine of {base_model} generated nothing in {STREAM_SECONDS:.0f} s. Look into "
            "var/logs/engine.log, or try again when the machine is less busy.",
            status=503,
        )
    examples = [
        {
            "prompt": [{"role": "system", "content": project.system_prompt}, *prompt],
            "completion": [{"role": "assistant", "content": answer.text or "."}],
            "finish_reason": "stop",
        }
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    return Speed(answer_tokens=rate, example_seconds=example_seconds(base_model, examples))


def answers_read(
    project: Project, prompts: Sequence[Sequence[Message]], *, until: float
) -> list[Streamed]:
    """Stream one answer of the base to each prompt concurrently; abort those that are not done at
    the time `until` after their next piece."""

    def read(number: int) -> Streamed:
        how = Sampling(project.max_tokens, project.temperature, project.top_p, seed=number)
        answer = Streamed()
        stream = Engine(project).stream
        for _ in stream(prompts[number], version=BASE_VERSION, sampling=how, into=answer):
            if time.monotonic() >= until:
                break  # closes the iterator and its connection
        return answer

    with ThreadPoolExecutor(len(prompts)) as pool:
        return list(pool.map(read, range(len(prompts))))


def example_seconds(base_model: str, examples: Sequence[dict[str, Any]]) -> float:
    """Return the seconds per example and epoch, from `python -m trainer plan`.

    Raises SpeedUnknown.
    """
    epochs = RunConfig().epochs
    with tempfile.TemporaryDirectory(prefix="prospect-plan-") as name:
        file = Path(name) / "examples.jsonl"
        lines = [
            {**example, "id": str(number), "label": number % 2 == 0}
            for number, example in enumerate(islice(cycle(examples), PLANNED))
        ]
        file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        given = ["--model", model_path(base_model), "--examples", str(file), "--json"]
        try:
            done = subprocess.run(
                [sys.executable, "-m", "trainer", "plan", *given],
                cwd=settings.BASE_DIR,
                capture_output=True,
                text=True,
                check=True,
                timeout=PLAN_SECONDS,
            )
            seconds = float(json.loads(done.stdout)["estimated_seconds"])
        except subprocess.CalledProcessError as error:
            why = (error.stderr.strip().splitlines() or ["no output"])[-1]
            raise SpeedUnknown(f"The training speed could not be measured: {why}") from error
        except (subprocess.TimeoutExpired, ValueError, KeyError, TypeError) as error:
            raise SpeedUnknown(f"The training speed could not be measured: {error}") from error
    return COMPUTED * seconds / (PLANNED * epochs)
