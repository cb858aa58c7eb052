"""What a sweep varies, and the trials that follow from it.

A value list is tried value by value; a range is drawn from at random, uniformly or, for settings
that work by their order of magnitude, uniformly in the logarithm (Bergstra and Bengio 2012).
"""

import itertools
import math
import random
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from feedback_app.training.models import Sweep
from feedback_app.training.runs.config import RunConfig, set_values
from feedback_app.training.runs.settings import BY_NAME, LIVE, Setting
from feedback_app.web.errors import UserError

MOST_SETTINGS, MOST_TRIALS = 4, 32
#: Settings that a sweep may vary.
SEARCHED = (
    "learning_rate",
    "beta",
    "lora_r",
    "lora_alpha",
    "epochs",
    "batch_size",
    "loss",
    "lambda_d",
    "lambda_u",
    "sft_weight",
    "lr_schedule",
    "warmup_ratio",
    "weight_decay",
    "lora_dropout",
    "target_modules",
    "seed",
)
#: Drawn uniformly in the logarithm.
LOGARITHMIC = ("learning_rate", "beta", "lambda_d", "lambda_u", "lora_r", "lora_alpha")
#: Losses that are measured on the same validation examples with the same rewards.
COMPARED_LOSSES = ("kto", "apo_zero_unpaired", "bco")
#: With one of these the validation losses of two trials are on different scales.
LOSS_SCALE = ("loss", "beta", "lambda_d", "lambda_u", "sft_weight")
#: Settings that a run from the live version takes from it.
OF_LIVE = ("lora_r", "lora_alpha", "target_modules")
#: Draws per trial until a range is taken as having no further values.
DRAWS = 20

_RANGE = re.compile(r"(\S+)\s+to\s+(\S+)\Z")

Value = float | int | str


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included."""

    low: float
    high: float


Values = tuple[Value, ...] | Range
Space = Mapping[str, Values]


def values_read(name: str, text: str) -> Values:
    """Read the values of a setting: "1e-5, 1e-4", or a range, "1e-5 to 1e-3".

    Raises UserError with everything that is wrong.
    """
    if name not in SEARCHED:
        raise UserError(f"{name} is no setting that a sweep varies: {', '.join(SEARCHED)}.")
    setting = BY_NAME[name]
    found = _RANGE.match(text.strip())
    if found is not None and setting.bounds is not None:
        low, high = _numbers(setting, found.groups())
        if low >= high:
            raise UserError(f"{setting.label}: a range begins with the lower value.")
        return Range(low, high)
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise UserError(f"{setting.label}: list values, such as {_example(setting)}.")
    if setting.bounds is None:
        return tuple(dict.fromkeys(_choices(setting, parts)))
    return tuple(dict.fromkeys(_numbers(setting, parts)))


def _example(setting: Setting) -> str:
    if setting.bounds is None:
        return ", ".join(key for key, _ in _allowed(setting)[:2])
    return f"{setting.bounds[0]:g}, {setting.bounds[1]:g}"


def _allowed(setting: Setting) -> list[tuple[str, str]]:
    """Return the choices of a setting that a sweep compares, as (value, label)."""
    everything = list(setting.choices)
    return [c for c in everything if setting.name != "loss" or c[0] in COMPARED_LOSSES]


def _choices(setting: Setting, parts: Iterable[str]) -> list[str]:
    known = {key.lower(): key for key, _ in _allowed(setting)}
    known |= {label.lower(): key for key, label in _allowed(setting)}
    if wrong := [part for part in parts if part.lower() not in known]:
        names = ", ".join(key for key, _ in _allowed(setting))
        raise UserError(f"{setting.label}: {', '.join(wrong)[:80]} cannot be compared: {names}.")
    return [known[part.lower()] for part in parts]


def _numbers(setting: Setting, parts: Iterable[str]) -> list[float]:
    faults, numbers = [], []
    low, high = setting.bounds or (-math.inf, math.inf)
    for part in parts:
        try:
            number = float(part)
        except ValueError:
            faults.append(f"{part[:40]} is no number")
            continue
        if not low <= number <= high:  # nor is NaN
            faults.append(f"{part[:40]} is not within {low:.10g} to {high:.10g}")
        elif setting.whole and not number.is_integer():
            faults.append(f"{part[:40]} is no whole number")
        else:
            numbers.append(int(number) if setting.whole else number)
    if faults:
        raise UserError(f"{setting.label}: {'; '.join(faults)}.")
    return numbers


def trials_of(
    base: RunConfig, space: Space, *, method: str, trials: int, seed: int
) -> list[RunConfig]:
    """Return the settings of every trial, each once, in the order in which they begin.

    A grid has one for every combination of the values; a random search draws `trials` with `seed`.
    Raises UserError for a space that cannot be searched and for settings that exclude each other.
    """
    _space_check(base, space, method)
    if method == Sweep.Method.GRID:
        lists = [values for values in space.values() if isinstance(values, tuple)]
        count = math.prod(map(len, lists))
        if count > MOST_TRIALS:
            raise UserError(
                f"This grid has {count:,} trials, and a sweep has at most {MOST_TRIALS}: list "
                "fewer values, or draw trials at random."
            )
        found = list(itertools.product(*lists))
    else:
        if not 2 <= trials <= MOST_TRIALS:
            raise UserError(f"Trials: choose 2 to {MOST_TRIALS}.")
        found = list(_drawn(space, trials, random.Random(seed)))  # noqa: S311 - not a secret
    if len(found) < 2:
        raise UserError("A sweep has at least two trials: list more values.")
    return [_trial(base, dict(zip(space, values, strict=True))) for values in found]


def _space_check(base: RunConfig, space: Space, method: str) -> None:
    if not 1 <= len(space) <= MOST_SETTINGS:
        raise UserError(f"A sweep varies one to {MOST_SETTINGS} settings.")
    if base.start_from == LIVE and (fixed := [name for name in OF_LIVE if name in space]):
        raise UserError(
            f"{BY_NAME[fixed[0]].label}: a run that starts from the live version has its value."
        )
    if method != Sweep.Method.GRID:
        return
    for name, values in space.items():
        if isinstance(values, Range):
            raise UserError(
                f"{BY_NAME[name].label}: a grid tries listed values. Separate them by commas, or "
                "draw trials at random."
            )


def _drawn(space: Space, trials: int, source: random.Random) -> Iterator[tuple[Value, ...]]:
    seen = set()
    for _ in range(DRAWS * trials):
        values = tuple(_draw(name, values, source) for name, values in space.items())
        if values not in seen:
            seen.add(values)
            yield values
        if len(seen) == trials:
            return


def _draw(name: str, values: Values, source: random.Random) -> Value:
    if not isinstance(values, Range):
        return source.choice(values)
    low, high = values.low, values.high
    if name in LOGARITHMIC:
        number = math.exp(source.uniform(math.log(low), math.log(high)))
    else:
        number = source.uniform(low, high)
    if BY_NAME[name].whole:
        return round(min(max(number, low), high))
    # three digits are enough to tell trials apart
    return min(max(float(f"{number:.3g}"), low), high)


def _trial(base: RunConfig, given: Mapping[str, Value]) -> RunConfig:
    try:
        return set_values(base, given)
    except UserError as error:
        shown = ", ".join(f"{BY_NAME[name].label} {value}" for name, value in given.items())
        raise UserError(f"The trial with {shown}: {error}") from error


def space_json(space: Space) -> dict[str, Any]:
    """Return the space as a sweep stores it."""
    return {
        name: {"low": values.low, "high": values.high} if isinstance(values, Range) else [*values]
        for name, values in space.items()
    }


def values_shown(stored: Any) -> str:
    """Return the stored values of a setting as they are written in the form."""
    if isinstance(stored, dict):
        return f"{stored['low']:g} to {stored['high']:g}"
    return ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in stored)
