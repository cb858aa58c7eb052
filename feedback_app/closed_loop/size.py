"""The size of the proof: power, expected duration, and the size that fits a budget."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import NormalDist

#: What the project's runs showed (docs/log.md, eight of them): 62 to 69 % of the base's answers
#: deserve a thumb up, and 14 to 24 points more of the adapter's. The middle of +15 and +20.
BASE_UP_RATE = 0.65
EXPECTED_RISE = 0.175
POWER = 0.9
CONFIDENCE = 0.95

#: Tokens of an answer with the starter's system prompt: 48 words before training, 30 after.
ANSWER_TOKENS = 65
#: Answers of the gate: two to 40 prompts by base and adapter, and the adapter's for its KL.
GATE_ANSWERS = 2 * 40 * 2 + 16
#: Requests per vote (page and vote), on the same cores as the engine.
VOTE_SECONDS = 0.15
#: Signing in, starting the trainer twice, loading models, releasing.
FIXED_SECONDS = 60.0
#: Concurrent answers before the first one is finished.
PARALLEL_ANSWERS = 16
#: Examples of a training step; progress is reported after each step.
STEP_EXAMPLES = 16
#: A step is never considered stuck before this: the machine may be busy.
LEAST_PATIENCE_SECONDS = 300.0
#: How many times longer than measured a busy machine may take.
PATIENCE = 5.0


@dataclass(frozen=True)
class LoopSize:
    """The amount of work of the proof. The defaults are the size of all measured runs."""

    annotators: int = 3
    prompts: int = 150
    validation_percent: int = 10
    test_percent: int = 25  # 300 votes are few for a gate: a fifth of them decides nothing
    answers_per_prompt: int = 2
    noise: float = 0.10
    epochs: int = 2
    unseen_prompts: int = 80
    answers_per_unseen: int = 2

    @property
    def votes(self) -> int:
        """Return the number of votes: one per sampled answer."""
        return self.prompts * self.answers_per_prompt

    @property
    def test(self) -> int:
        """Return the approximate number of votes that only the gate reads."""
        return round(self.votes * self.test_percent / 100)

    @property
    def trained(self) -> int:
        """Return the approximate number of votes that are trained on."""
        return round(self.votes * (100 - self.validation_percent - self.test_percent) / 100)


#: The smallest size that is chosen. No run with fewer than 300 votes has been measured: the
#: expected rise is trusted down to two thirds of them, and not for one epoch instead of two.
LEAST_PROMPTS = 100


@dataclass(frozen=True)
class Speed:
    """The speed of this machine: tokens/s of the engine over several streams, and seconds per
    example and epoch of training, including its share of the reference pass."""

    answer_tokens: float
    example_seconds: float


def least_unseen(
    answers: int, *, base: float = BASE_UP_RATE, rise: float = EXPECTED_RISE, power: float = POWER
) -> int:
    """Return how many unseen prompts, with `answers` each, show a rise with this power.

    The rise is a mean of differences by prompt, significant if its two-sided 95 % interval is
    above zero. For a mean of n differences with standard deviation σ that takes

        n = (z_0.975 + z_power)² σ² / rise²

    (Chow, Shao, Wang 2008, *Sample Size Calculations in Clinical Research*, Section 3.1). With k
    answers a side, drawn independently, σ² = (p (1 - p) + q (1 - q)) / k for up-rates p and q =
    p + rise: 0.43 for 65 and 82 % with k = 2, and 0.43 is what the measured interval of +18
    points (+9 to +28, 80 prompts) comes from.
    """
    live = min(base + rise, 1.0)
    variance = (base * (1 - base) + live * (1 - live)) / answers
    normal = NormalDist()
    width = normal.inv_cdf((1 + CONFIDENCE) / 2) + normal.inv_cdf(power)
    return math.ceil(width**2 * variance / rise**2)


def seconds_for(size: LoopSize, speed: Speed) -> dict[str, float]:
    """Return the expected seconds of each step of the proof, in order."""
    answer = ANSWER_TOKENS / speed.answer_tokens
    # base, adapter and the reference score the test examples, and the base reads the other votes;
    # scoring is a third of training
    scored = size.test + (size.votes - size.test) / 3
    gate = GATE_ANSWERS * answer + scored * speed.example_seconds
    return {
        "annotate": size.votes * (answer + VOTE_SECONDS),
        "train": FIXED_SECONDS + size.trained * size.epochs * speed.example_seconds + gate,
        "release": 5.0,
        "measure": 2 * size.unseen_prompts * size.answers_per_unseen * answer,
    }


def minutes_for(size: LoopSize, speed: Speed) -> float:
    """Return the expected minutes of the whole proof."""
    return sum(seconds_for(size, speed).values()) / 60


def size_for(speed: Speed, budget_minutes: float) -> LoopSize:
    """Return the largest size that is expected to fit the budget.

    If none fits, return the smallest that can show the expected rise (`least_unseen`): compare it
    with `minutes_for`.
    """
    for size in _sizes():
        if minutes_for(size, speed) <= budget_minutes:
            break
    return size


def patience_for(size: LoopSize, speed: Speed) -> float:
    """Return for how many seconds a step may show no progress before it counts as stuck.

    A multiple of the longest work between two reports of progress: the first of several answers, a
    training step, or the test examples of one candidate.
    """
    longest = max(
        PARALLEL_ANSWERS * ANSWER_TOKENS / speed.answer_tokens,
        STEP_EXAMPLES * speed.example_seconds,
        size.test * speed.example_seconds,
    )
    return max(LEAST_PATIENCE_SECONDS, PATIENCE * longest)


def _sizes(steps: int = 10) -> Iterator[LoopSize]:
    """Yield sizes from the full to the smallest: prompts and unseen prompts shrink together."""
    full = LoopSize()
    least = min(full.unseen_prompts, least_unseen(full.answers_per_unseen))
    for number in range(steps + 1):
        share = number / steps
        yield LoopSize(
            prompts=round(full.prompts + share * (LEAST_PROMPTS - full.prompts)),
            unseen_prompts=round(full.unseen_prompts + share * (least - full.unseen_prompts)),
        )


class TimeLeft:
    """Remaining seconds of a step and of the whole, from the estimate and the progress."""

    def __init__(self, expected: Mapping[str, float]) -> None:
        self._expected = dict(expected)
        self._step = ""
        self._step_began = 0.0
        self._phase = ""
        self._phase_began = 0.0
        self._phase_done = 0

    def begin(self, step: str, now: float) -> None:
        """Start a step at the time `now` in seconds."""
        self._step, self._step_began, self._phase = step, now, ""

    def left(self, phase: str, done: int, total: int, now: float) -> tuple[float, float]:
        """Return (seconds left of this step, seconds left in all) after `done` of a phase's
        `total`: what was estimated for the step, or more if the progress so far implies more."""
        if phase != self._phase:
            self._phase, self._phase_began, self._phase_done = phase, now, done
        rest = max(0.0, self._expected.get(self._step, 0.0) - (now - self._step_began))
        if done > self._phase_done:
            each = (now - self._phase_began) / (done - self._phase_done)
            rest = max(rest, (total - done) * each)
        steps = list(self._expected)
        later = steps[steps.index(self._step) + 1 :] if self._step in steps else []
        return rest, rest + sum(self._expected[step] for step in later)
