"""Base and adapters in one mixed batch answer as they do alone; broken adapters are named."""

import json
import os
import signal
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from tests.tiny import make_tiny_adapter
from tests.trainer.conftest import events, needs_compiled
from tests.trainer.evaluation.test_evaluate import make_eval, report_of
from trainer.backends import serving_decoder
from trainer.backends.base import Decoder
from trainer.backends.torch_reference.adapters import AdapterStack
from trainer.data.chat import prompt_ids
from trainer.engine import batch
from trainer.engine.sampling import Sampler, Sampling, derived_seed
from trainer.errors import BadArtifact, Cancelled, Refused, RunFailed
from trainer.evaluation import evaluate as evaluation
from trainer.evaluation import sampling
from trainer.evaluation import versions as module
from trainer.evaluation.answer import answer
from trainer.evaluation.evaluate import evaluate
from trainer.evaluation.generate import Answer
from trainer.evaluation.versions import Question, Versions
from trainer.models.loading import LoadedBase, load_base

pytestmark = pytest.mark.slow

NAMES = ("base", "starter@1", "starter@2")
STACKS = (pytest.param(serving_decoder, marks=needs_compiled), AdapterStack)
#: Tolerance between the logits of two batches through transformers: sums of at most 128 products
#: in float32, two layers deep, each rounded to 6e-8 of values up to about ten.
ROUNDING = 1e-4


@pytest.fixture
def paths(tmp_path: Path, tiny: LoadedBase) -> dict[str, Path | None]:
    make_tiny_adapter(tmp_path / "one", tiny, name="starter@1", rank=4)
    make_tiny_adapter(tmp_path / "two", tiny, name="starter@2", rank=8, seed=2)
    return {"base": None, "starter@1": tmp_path / "one", "starter@2": tmp_path / "two"}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[int, int], Tensor]:
    """Record the logits that each token is drawn from, by seed and token index."""
    found: dict[tuple[int, int], Tensor] = {}
    choose = batch.choose

    def watched(scores: Tensor, samplers: list[Sampler], before: Any) -> list[int]:
        for row, sampler in zip(scores, samplers, strict=True):
            seed = sampler.sampling.seed or 0
            number = sum(one == seed for one, _ in found)
            found[seed, number] = row.clone()
        return choose(scores, samplers, before)

    monkeypatch.setattr(batch, "choose", watched)
    return found


def questions(base: LoadedBase, *names: str) -> list[Question]:
    """Return two questions per version for each of four prompts with a common prefix."""
    system = {"role": "system", "content": "Write a short answer and stop when it is said. " * 2}
    return [
        Question(
            name,
            tuple(prompt_ids(base.tokenizer, [system, {"role": "user", "content": text}])),
            Sampling(20, 1.0, 0.95, seed=derived_seed(7, 1000 * NAMES.index(name) + number)),
        )
        for name in names
        for number, text in enumerate(("Bread?", "And which river is it?", "Hello", "Why?") * 2)
    ]


def asked(
    tiny_dir: Path,
    paths: dict[str, Path | None],
    monkeypatch: pytest.MonkeyPatch,
    stack: Callable[[Any], Decoder],
    *names: str,
    rows: int = 4,
) -> list[Answer]:
    """Return the answers of some versions, requested together."""
    monkeypatch.setattr(module, "serving_decoder", stack)
    monkeypatch.setattr(module, "DECODER_ROWS", rows)
    monkeypatch.setattr(module, "TRANSFORMERS_ROWS", rows)
    base = load_base(str(tiny_dir), dtype="float32", device="cpu")
    versions = Versions(base, {name: paths[name] for name in names})
    return versions.answers(questions(base, *names))


@pytest.mark.parametrize("stack", STACKS)
def test_version_gives_the_same_answers_alone_and_in_a_mixed_batch(
    tiny_dir: Path,
    paths: dict[str, Path | None],
    monkeypatch: pytest.MonkeyPatch,
    drawn: dict[tuple[int, int], Tensor],
    stack: Callable[[Any], Decoder],
) -> None:
    together = asked(tiny_dir, paths, monkeypatch, stack, *NAMES, rows=7)
    scores = dict(drawn)
    drawn.clear()
    alone = [
        answer for name in NAMES for answer in asked(tiny_dir, paths, monkeypatch, stack, name)
    ]
    assert alone == together
    assert len(set(together)) == len(together), "every answer has its own random stream"
    assert scores.keys() == drawn.keys()
    apart = max(float((scores[key] - drawn[key]).abs().max()) for key in scores)
    assert apart == 0 if stack is serving_decoder else apart < ROUNDING


@needs_compiled
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_decoder_and_transformers_apply_the_same_adapters(
    tiny_dir: Path,
    paths: dict[str, Path | None],
    monkeypatch: pytest.MonkeyPatch,
    drawn: dict[tuple[int, int], Tensor],
    dtype: str,
) -> None:
    """The first logits are those of the same weights: the adapter is applied exactly once."""
    found = []
    for stack in (serving_decoder, AdapterStack):
        drawn.clear()
        monkeypatch.setattr(module, "serving_decoder", stack)
        base = load_base(str(tiny_dir), dtype=dtype, device="cpu")
        Versions(base, paths).answers(questions(base, *NAMES))
        found.append({key: row.float() for key, row in drawn.items() if key[1] == 0})
    ours, theirs = found
    assert len(ours) == 8 * len(NAMES)
    limit = ROUNDING if dtype == "float32" else 0.3
    assert max(float((ours[key] - theirs[key]).abs().max()) for key in ours) < limit


@pytest.mark.parametrize("stack", STACKS)
def test_adapter_with_infinite_outputs_alone_is_named(
    tiny_dir: Path,
    paths: dict[str, Path | None],
    monkeypatch: pytest.MonkeyPatch,
    stack: Callable[[Any], Decoder],
) -> None:
    """Its A turns every input into infinity. In transformers all rows of a mixed batch pass through
    it, and masking the rows of other adapters makes NaN of it."""
    read = module.read_adapter

    def exploded(path: Path, *given: Any) -> Any:
        manifest, weights = read(path, *given)
        factor = 1e38 if path == paths["starter@2"] else 1.0
        return manifest, {name: (a * factor, b) for name, (a, b) in weights.items()}

    monkeypatch.setattr(module, "read_adapter", exploded)
    with pytest.raises(RunFailed, match=r"^starter@2 gives scores that are NaN or infinite"):
        asked(tiny_dir, paths, monkeypatch, stack, *NAMES)


def test_adapter_with_infinite_outputs_fails_the_evaluation_by_name(
    tmp_path: Path, tiny: LoadedBase, tiny_dir: Path
) -> None:
    make_tiny_adapter(tmp_path / "bad", tiny, strength=1e30)
    eval_dir = make_eval(tmp_path, tiny_dir, {"bot@7": str(tmp_path / "bad"), "base": None})
    with pytest.raises(RunFailed, match=r"bot@7 gives"):
        evaluate(eval_dir)
    (failed,) = events(eval_dir, "failed")
    assert "bot@7" in failed["reason"]


def test_gate_gives_the_same_figures_alone_and_with_other_candidates(
    tmp_path: Path, paths: dict[str, Path | None], tiny_dir: Path
) -> None:
    found = []
    for number, names in enumerate((("starter@1",), NAMES)):
        (tmp_path / str(number)).mkdir()
        eval_dir = make_eval(
            tmp_path / str(number),
            tiny_dir,
            {name: path and str(path) for name, path in paths.items() if name in names},
        )
        evaluate(eval_dir)
        report = report_of(eval_dir)
        answers = [item["answers"]["starter@1"] for item in report["answers"]]
        found.append((report["candidates"]["starter@1"], answers))
    assert found[0] == found[1]


@pytest.mark.parametrize("stack", STACKS)
def test_generating_base_is_freed_before_the_scoring_base_is_loaded(
    tmp_path: Path,
    paths: dict[str, Path | None],
    tiny_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    stack: Callable[[Any], Decoder],
) -> None:
    eval_dir = make_eval(tmp_path, tiny_dir, {"x": str(paths["starter@1"]), "base": None})
    generated: list[weakref.ref[Any]] = []
    alive: list[bool] = []

    def to_serve(model: Any) -> Decoder:
        made = stack(model)
        generated.extend((weakref.ref(model), weakref.ref(made)))
        return made

    def to_score(name: str, **given: Any) -> LoadedBase:
        alive.extend(reference() is not None for reference in generated)
        return load_base(name, **given)

    monkeypatch.setattr(module, "serving_decoder", to_serve)
    monkeypatch.setattr(evaluation, "load_base", to_score)
    evaluate(eval_dir)
    assert alive == [False, False], "the model and its packed weights must be freed"


def test_progress_counts_the_answers_of_all_candidates(
    tmp_path: Path, paths: dict[str, Path | None], tiny_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DECODER_ROWS", 3)
    monkeypatch.setattr(module, "TRANSFORMERS_ROWS", 3)
    eval_dir = make_eval(tmp_path, tiny_dir, {"x": str(paths["starter@1"]), "base": None})
    evaluate(eval_dir)
    reported = [event for event in events(eval_dir, "phase") if event["phase"] == "sampling"]
    done = [event["done"] for event in reported]
    # 3 prompts, 2 answers each, of 2 candidates, and 2 answers for the adapter's KL
    assert {event["total"] for event in reported} == {14}
    assert done[-1] == 14
    assert done == sorted(set(done))
    assert len(done) > 3, "progress must be reported before the end"


def test_sigterm_ends_sampling_before_an_answer_is_finished(
    tmp_path: Path, tiny_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eval_dir = make_eval(tmp_path, tiny_dir, {"base": None})
    steps: list[int] = []
    step = batch.Batch.step

    def watched(self: batch.Batch) -> Any:
        steps.append(len(self.rows))
        if len(steps) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self)

    monkeypatch.setattr(batch.Batch, "step", watched)
    with pytest.raises(Cancelled):
        evaluate(eval_dir)
    assert len(steps) == 2
    assert not [event for event in events(eval_dir, "phase") if event["phase"] == "sampling"]
    assert events(eval_dir, "cancelled")


@needs_compiled
def test_second_answer_to_a_prompt_reuses_its_prefill(
    tiny_dir: Path, paths: dict[str, Path | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[batch.Batch] = []

    def kept(*given: Any) -> batch.Batch:
        made.append(batch.Batch(*given))
        return made[-1]

    monkeypatch.setattr(module, "Batch", kept)
    asked(tiny_dir, paths, monkeypatch, serving_decoder, "base")
    assert made[0].reused_tokens > 4 * 32
    asked(tiny_dir, paths, monkeypatch, AdapterStack, "base")
    assert made[1].reused_tokens == 0, "with transformers reuse would change the rounding"


def test_prompts_that_do_not_fit_are_refused_by_number(tiny: LoadedBase) -> None:
    versions = Versions(tiny, {"base": None})
    with pytest.raises(Refused, match=r"prompt 0 has 600 tokens.*prompt 1 has 0"):
        versions.answers(
            [Question("base", (5,) * 600, Sampling()), Question("base", (), Sampling())]
        )


def test_answers_from_the_command_line_use_the_adapter(
    tiny_dir: Path, paths: dict[str, Path | None]
) -> None:
    def said(adapter: Path | None, *prompts: str) -> list[str]:
        return answer(
            prompts,
            model=str(tiny_dir),
            adapter=adapter,
            system="Be short.",
            sampling=Sampling(12, 1.0, seed=1),
            dtype="auto",
            device="cpu",
        )

    base = said(None, "Bread?", "Bread?")
    assert base[0] != base[1], "each prompt has its own random stream"
    assert said(None, "Bread?") == base[:1]
    assert said(paths["starter@1"], "Bread?") != base[:1]


def test_adapter_that_does_not_fit_is_refused(
    tmp_path: Path, tiny: LoadedBase, paths: dict[str, Path | None]
) -> None:
    path = paths["starter@1"]
    assert path is not None
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, "base_sha256": "f" * 64}))
    with pytest.raises(BadArtifact, match="trained on another base model"):
        Versions(tiny, {"x": path})


def test_generation_and_scoring_each_use_their_own_type(
    tmp_path: Path, tiny_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eval_dir = make_eval(tmp_path, tiny_dir, {"base": None})
    asked: list[tuple[str, Any]] = []

    def served(name: str, **given: Any) -> LoadedBase:
        asked.append(("served", given["dtype"]))
        return load_base(name, **given)

    def loaded(name: str, **given: Any) -> LoadedBase:
        asked.append(("scored", given["dtype"]))
        return load_base(name, **given)

    monkeypatch.setattr(sampling, "load_served", served)
    monkeypatch.setattr(evaluation, "load_base", loaded)
    evaluate(eval_dir)
    assert asked == [("served", "float32"), ("scored", "float32")]
