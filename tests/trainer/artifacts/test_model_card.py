"""The model card describes the adapter, with figures from the run's own records."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from tests.trainer.conftest import MakeRun
from trainer.artifacts.model_card import (
    UNKNOWN_LICENCE,
    GateFigure,
    base_licence,
    model_card,
    read_curve,
)
from trainer.config import TrainConfig
from trainer.losses import Lambdas
from trainer.training.train import train

pytestmark = pytest.mark.slow

CONFIG = TrainConfig(base_model="models/tiny|x", adapter_name="starter@4", beta=0.25, lora_r=8)
LAMBDAS = Lambdas(desirable=1.0, undesirable=1.5, bounded=False)


def card(**more: object) -> str:
    return model_card(CONFIG, desirable=5, undesirable=4, lambdas=LAMBDAS, steps=6, **more)  # type: ignore[arg-type]


def row(text: str, first: str) -> list[str]:
    """Return the cells of the table row that begins with `first`."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def front_matter(text: str) -> str:
    assert text.startswith("---\n")
    return text[4 : text.index("\n---\n", 4)]


def test_card_names_data_base_and_every_setting() -> None:
    text = card(base_sha256="ab" * 32, licence="apache-2.0")
    assert "5 up, 4 down" in text
    assert row(text, "fingerprint")[1] == f"`{'ab' * 32}`"
    assert row(text, "licence")[1] == "apache-2.0"
    assert row(text, "steps")[1] == "6"
    assert row(text, "`beta`")[1] == "0.25"
    assert row(text, "`lambda_u`")[1] == "1.5"  # the value used, not the None of the config
    places = {"base_model", "adapter_name", "device", "threads", "report_to"}
    settings = set(CONFIG.as_dict()) - places
    assert all(row(text, f"`{name}`") for name in settings)
    assert "license: apache-2.0" in front_matter(text)
    assert 'base_model: "models/tiny|x"' in front_matter(text)


def test_card_without_curves_gate_or_licence_has_no_empty_tables() -> None:
    text = card()
    assert "## Curves" not in text
    assert "## Gate" not in text
    assert row(text, "licence")[1] == UNKNOWN_LICENCE
    assert "license: unknown" in front_matter(text)


def test_card_shows_curves_and_gate() -> None:
    step = {"step": 3, "loss": 0.4, "kl_unclamped": -1.25, "reward_desirable": 2.0}
    text = card(
        curve=[step],
        gate=[GateFigure("ranking", 0.5, 0.75, True), GateFigure("words", None, 4.0, False)],
    )
    assert row(text, "3") == ["3", "0.4", "-1.25", "2", "–"]
    assert row(text, "ranking") == ["ranking", "0.5", "0.75", "yes"]
    assert row(text, "words") == ["words", "–", "4", "no"]


def test_curve_is_spread_over_the_run_and_uses_the_later_of_two_events(tmp_path: Path) -> None:
    lines = [json.dumps({"type": "step", "step": n, "loss": 1.0}) for n in range(1, 61)]
    lines += [json.dumps({"type": "probe", "step": 60}), '{"type": "st']
    lines += [json.dumps({"type": "step", "step": n, "loss": 2.0}) for n in range(50, 61)]
    (tmp_path / "events.jsonl").write_text("\n".join(lines) + "\n")
    found = read_curve(tmp_path / "events.jsonl", up_to=55)
    steps = [event["step"] for event in found]
    assert len(steps) == 10
    assert (steps[0], steps[-1]) == (1, 55)
    gaps = [b - a for a, b in pairwise(steps)]
    assert set(gaps) == {6}
    assert [event["loss"] for event in found] == [1.0 if step < 50 else 2.0 for step in steps]


def test_curve_of_a_real_run_shows_its_steps(make_run: MakeRun) -> None:
    run_dir = make_run()
    train(run_dir)
    text = card(curve=read_curve(run_dir / "events.jsonl", up_to=6))
    assert float(row(text, "1")[1]) == pytest.approx(0.5, abs=1e-3)
    assert len(row(text, "6")) == 5


@pytest.mark.parametrize(
    ("files", "licence"),
    [
        ({"README.md": "---\ntags: [a]\nlicense: apache-2.0\n---\n# Model\n"}, "apache-2.0"),
        ({"README.md": '---\nlicense: "mit" # yes\n---\n'}, "mit"),
        ({"README.md": "---\nlicense: other\nlicense_name: gemma\n---\n"}, "gemma"),
        ({"README.md": "# Model\nlicense: mit\n"}, UNKNOWN_LICENCE),
        ({"README.md": "---\ntags: [a]\n---\nlicense: mit\n"}, UNKNOWN_LICENCE),
        ({"LICENSE": "\n   Apache | License \nVersion 2.0\n"}, "LICENSE: Apache \\| License"),
        ({"README.md": "---\nlicense: mit\n---\n", "LICENSE": "Other\n"}, "mit"),
        ({}, UNKNOWN_LICENCE),
    ],
)
def test_licence_comes_from_the_base_model(
    tmp_path: Path, files: dict[str, str], licence: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert base_licence(str(tmp_path)) == licence
    spdx = licence if licence in ("apache-2.0", "mit", "gemma") else "unknown"
    assert f"license: {spdx}\n" in front_matter(card(licence=licence)) + "\n"


def test_licence_of_a_hub_id_is_unknown() -> None:
    assert base_licence("someone/some-model") == UNKNOWN_LICENCE
