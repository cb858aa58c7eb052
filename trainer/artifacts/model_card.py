"""The model card of an adapter, README.md in its directory."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.config import TrainConfig
from trainer.losses import MAX_LAMBDA, ExampleLoss, Lambdas, loss_named

UNKNOWN_LICENCE = "unknown: check the base model's licence"

#: Rows of the table of curves: enough to see a bend, few enough to read.
CURVE_ROWS = 10
_CURVES = ("loss", "kl_unclamped", "reward_desirable", "reward_undesirable")
_MAX_README_BYTES = 1_000_000
_LICENCE_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "license", "license.txt")
# Settings without influence on the adapter, and those in the heading.
_LEFT_OUT = {"base_model", "adapter_name", "device", "threads", "report_to"}


@dataclass(frozen=True)
class GateFigure:
    """One line of the gate: a measure for the base or the version before, and for this adapter."""

    measure: str
    before: float | None
    after: float | None
    passed: bool


def model_card(
    config: TrainConfig,
    *,
    desirable: int,
    undesirable: int,
    lambdas: Lambdas,
    steps: int,
    base_sha256: str | None = None,
    start: tuple[str, str] | None = None,
    licence: str = UNKNOWN_LICENCE,
    curve: Sequence[Mapping[str, Any]] = (),
    gate: Sequence[GateFigure] = (),
) -> str:
    """README.md of an adapter directory, with the front matter that model hubs read.

    `start` is name and SHA-256 of the adapter that training started from, None for the base.
    `curve` holds `step` events (see read_curve), `gate` what a gate found when it has run; rewards
    and z₀ are in nats.
    """
    parts = [
        f"""---
base_model: {json.dumps(config.base_model)}
library_name: peft
license: {licence_identifier(licence)}
tags: [lora, kto]
---

# {config.adapter_name}

A LoRA adapter (rank {config.lora_r}) for `{config.base_model}`, trained with the
{config.loss.upper()} loss on {desirable + undesirable} answers that people judged:
{desirable} up, {undesirable} down.{_start(start)}

It follows the verdicts of the people who voted and inherits the limits of its base model. Training
alone does not show whether it is better than the base: compare them on test prompts.

## Base model

| | |
|---|---|
| name | `{config.base_model}` |
| fingerprint | {"not recorded" if base_sha256 is None else f"`{base_sha256}`"} |
| licence | {licence} |
""",
        "## Training\n\n"
        + _table(("setting", "value"), _settings(config, lambdas, steps, start))
        + _lambda_rule(config, lambdas),
    ]
    if curve:
        parts.append(
            "## Curves\n\nLoss, z₀ before its clamp, and the mean reward of liked and disliked "
            "answers, in nats.\n\n"
            + _table(
                ("step", "loss", "z₀", "reward up", "reward down"),
                [(str(row["step"]), *(_number(row.get(key)) for key in _CURVES)) for row in curve],
            )
        )
    if gate:
        parts.append(
            "## Gate\n\nOn test prompts.\n\n"
            + _table(
                ("measure", "before", "this adapter", "passed"),
                [
                    (
                        figure.measure,
                        _number(figure.before),
                        _number(figure.after),
                        "yes" if figure.passed else "no",
                    )
                    for figure in gate
                ],
            )
        )
    return "\n".join(parts)


def read_curve(events: Path, *, up_to: int, rows: int = CURVE_ROWS) -> list[dict[str, Any]]:
    """About `rows` `step` events of a run, evenly spread, the first and the last among them.

    `up_to` is the step whose weights were kept. Of two events of one step the later one counts (a
    resumed run writes them again); a line that a crash cut off is passed over.
    """
    found: dict[int, dict[str, Any]] = {}
    for line in events.read_text(encoding="utf-8").splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if event.get("type") == "step" and event["step"] <= up_to:
            found[event["step"]] = event
    steps = sorted(found)
    if len(steps) > rows:
        chosen = {round(index * (len(steps) - 1) / (rows - 1)) for index in range(rows)}
        steps = [steps[index] for index in sorted(chosen)]
    return [found[step] for step in steps]


def base_licence(base_model: str) -> str:
    """Return the licence of a base model in a directory: what its README's front matter names (an
    SPDX identifier, as a rule), or else the first line of its licence file. A hub id, or a
    directory without a licence, gives UNKNOWN_LICENCE."""
    directory = Path(base_model)
    if not directory.is_dir():
        return UNKNOWN_LICENCE
    named = _front_matter_licence(directory / "README.md")
    if named is not None:
        return named
    for name in _LICENCE_FILES:
        for line in _text(directory / name).splitlines():
            if line.strip():
                return f"{name}: {_cell(line)[:80]}"
    return UNKNOWN_LICENCE


def licence_identifier(licence: str) -> str:
    """Return what model hubs accept as `license`: an identifier as it is, any other text as
    unknown."""
    return licence if re.fullmatch(r"[a-z0-9.-]+", licence) else "unknown"


def _front_matter_licence(readme: Path) -> str | None:
    text = _text(readme)
    if not text.startswith("---\n"):
        return None
    front, closed, _ = text[4:].partition("\n---")
    found = dict(re.findall(r"^(license|license_name):[ ]*[\"']?([^\"'\n#]+)", front, re.MULTILINE))
    names = [found[key].strip() for key in ("license", "license_name") if key in found]
    if not closed or not names:
        return None
    # with 'other' the name is in `license_name`
    return _cell(names[-1] if names[0] == "other" else names[0])[:80]


def _text(path: Path) -> str:
    if not path.is_file() or path.stat().st_size > _MAX_README_BYTES:
        return ""
    return path.read_text(encoding="utf-8", errors="replace")


def _settings(
    config: TrainConfig, lambdas: Lambdas, steps: int, start: tuple[str, str] | None
) -> list[tuple[str, str]]:
    """Return every field of the config that shaped the adapter, with what became of it."""
    given = {key: value for key, value in config.as_dict().items() if key not in _LEFT_OUT}
    given |= {"lambda_d": lambdas.desirable, "lambda_u": lambdas.undesirable}
    given |= {"start_adapter": start[0] if start else None}  # its name, not where it was
    rows = [("steps", str(steps))]
    return rows + [(f"`{key}`", _number(value)) for key, value in given.items()]


def _start(start: tuple[str, str] | None) -> str:
    """Return what the adapter continues; nothing for one that started from the base."""
    if start is None:
        return ""
    name, sha256 = start
    return (
        f"\n\nIt continues `{name}` (weights `{sha256}`): the matrices of that version were where "
        "training started, and its answers the reference of the loss. What that version learned "
        "from is in this one too."
    )


def _lambda_rule(config: TrainConfig, lambdas: Lambdas) -> str:
    """Return how λ was chosen; nothing for a loss without class weights, or where both are set."""
    given = config.lambda_d is not None and config.lambda_u is not None
    if given or not isinstance(loss_named(config.loss), ExampleLoss):
        return ""
    limit = f"; λ is held at {MAX_LAMBDA:g}" if lambdas.bounded else ""
    return (
        "\nλ_D and λ_U bring λ_D·W_D / (λ_U·W_U) in [1, 4/3], W the summed example weights of a "
        f"class{limit}.\n"
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(map(_cell, line))} |\n" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _number(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
