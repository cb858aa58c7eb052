"""`python -m trainer evaluate EVAL_DIR`: measure a candidate and other versions for a gate.

Every version answers the same prompts with the same seeds and is scored on the same test examples;
the base model is measured like any other. Finished answers are kept in answers.jsonl: a call after
a kill, or with more answers per prompt, samples only what is missing.
"""

import gc
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic

from trainer.artifacts.adapted import adapted
from trainer.artifacts.adapter_directory import verify_adapter
from trainer.config import MAX_RANK
from trainer.data.examples import read_examples
from trainer.directory_lock import locked
from trainer.disk import disk_errors_reported
from trainer.errors import Cancelled, TrainerError
from trainer.evaluation.config import EvalConfig, EvalPrompt, read_prompts
from trainer.evaluation.fixed_texts import FixedTexts
from trainer.evaluation.measures.answers import MeasuredAnswer, PromptStates, measured_answers
from trainer.evaluation.measures.injection import Phrase, injected_phrases
from trainer.evaluation.report import Findings, probes_reported, report_of, write_report
from trainer.evaluation.sampling import Sampled, Version, sampled
from trainer.evaluation.scoring import TOKEN_BUDGET, ScoredExamples, Scores, scores_of
from trainer.evaluation.stored_answers import StoredAnswers
from trainer.evaluation.up_rate import Ratings, rate_answers
from trainer.events import EventLog
from trainer.models.loading import LoadedBase, load_base
from trainer.signals import StopRequest, stop_on_signal


def evaluate(eval_dir: Path) -> None:
    """Measure all candidates of `eval_dir` and write report.json.

    Reads evaluate.json, prompts.jsonl, test.jsonl and, if it exists, probes.jsonl: prompts that are
    answered, reported and not measured. Raises Refused (config, prompts, examples),
    BadArtifact, RunFailed (a candidate gives NaN) or Cancelled, which are written to events.jsonl
    first; or NotWritten.
    """
    config = EvalConfig.read(eval_dir / "evaluate.json")
    with (
        disk_errors_reported(eval_dir),
        locked(eval_dir),
        EventLog(eval_dir / "events.jsonl") as events,
    ):
        try:
            with stop_on_signal() as stop:
                _evaluate(eval_dir, config, events, stop)
        except Cancelled as error:
            events.write("cancelled", step=error.step)
            raise
        except TrainerError as error:
            events.write(
                "failed",
                step=None,
                reason=str(error),
                advice="fix the errors above and start again",
            )
            raise


def _evaluate(eval_dir: Path, config: EvalConfig, events: EventLog, stop: StopRequest) -> None:
    started = monotonic()
    prompts = read_prompts(eval_dir / "prompts.jsonl")
    probes_file = eval_dir / "probes.jsonl"
    probes = read_prompts(probes_file) if probes_file.exists() else []
    examples = read_examples(eval_dir / "test.jsonl")
    versions = _versions(eval_dir, config)

    def check() -> None:
        if stop.asked:
            raise Cancelled(0)

    def report(phase: str, done: int, total: int) -> None:
        events.write("phase", phase=phase, done=done, total=total)
        check()

    report("loading", 0, 2)
    with StoredAnswers(eval_dir / "answers.jsonl") as stored:
        found = sampled(
            config, versions, prompts, stored, probes=probes, report=report, check=check
        )
    gc.collect()  # free the serving model before the scoring model is loaded
    report("loading", 1, 2)
    base = load_base(
        config.base_model,
        dtype=config.dtype,
        device=config.device,
        quantisation=config.quantisation,
    )
    report("loading", 2, 2)
    flat = {name: [a for group in each.answers for a in group] for name, each in found.items()}
    # the votes, the test examples, then each version twice: its answers and its scores
    steps = 2 + 2 * len(versions)
    report("scoring", 0, steps)
    rated = rate_answers(
        base, eval_dir / "votes.jsonl", flat, seed=config.seed, chat=config.chat, on_step=check
    )
    report("scoring", 1, steps)
    test = ScoredExamples.of(base, examples, config.chat)
    answers = _measured(
        base, found, rated, done=lambda number: report("scoring", number, steps), on_step=check
    )
    cache = None if config.score_cache is None else eval_dir / config.score_cache
    fixed = FixedTexts(
        base,
        config.languages,
        cache=cache,
        evaluation=eval_dir,
        token_budget=TOKEN_BUDGET,
        template_kwargs=config.chat_template_kwargs,
    )
    scores: dict[str, Scores] = {}
    for number, (name, version) in enumerate(versions.items(), start=2 + len(versions)):
        report("scoring", number, steps)
        with adapted(base, version.path) as lora:
            scores[name] = scores_of(
                base,
                lora,
                name=name,
                version=version,
                test=test,
                fixed=fixed,
                kl_answers=found[name].kl,
                kl_prompts=min(config.kl_prompts, len(prompts)),
                check=check,
            )
    report("scoring", steps, steps)
    findings = {
        name: Findings(answers[name], scores[name], is_base=version.path is None)
        for name, version in versions.items()
    }
    write_report(
        eval_dir / "report.json",
        report_of(
            findings,
            prompts,
            test,
            _injection(answers, prompts),
            up_model=rated.up_model,
            probes=probes_reported(probes, {name: each.probes for name, each in found.items()}),
            seed=config.seed,
            seconds=round(monotonic() - started, 1),
        ),
    )


def _versions(eval_dir: Path, config: EvalConfig) -> dict[str, Version]:
    """Return the versions by name, verified before a base is loaded. Raises BadArtifact."""
    versions = {}
    for candidate in config.candidates:
        if candidate.path is None:
            versions[candidate.name] = Version(None, None)
            continue
        path = eval_dir / candidate.path
        manifest = verify_adapter(path, base_fingerprint=None, max_rank=MAX_RANK)
        versions[candidate.name] = Version(path, manifest)
    return versions


def _measured(
    base: LoadedBase,
    found: Mapping[str, Sampled],
    rated: Ratings,
    *,
    done: Callable[[int], None],
    on_step: Callable[[], None],
) -> dict[str, list[list[MeasuredAnswer]]]:
    """Return the measures of all versions' answers; `done` is called with the number of parts that
    are behind (votes and test examples, then each version), `on_step` before every forward pass."""
    done(2)
    first = next(iter(found.values()))
    contexts = [group[0].prompt_ids for group in first.answers]
    states = PromptStates.of(base, contexts, on_step=on_step)
    measured = {}
    for number, (name, version) in enumerate(found.items(), start=3):
        ups = rated.up.get(name)
        measured[name] = measured_answers(base, version.answers, states, ups, on_step=on_step)
        done(number)
    return measured


def _injection(
    answers: Mapping[str, Sequence[Sequence[MeasuredAnswer]]], prompts: Sequence[EvalPrompt]
) -> list[Phrase]:
    return injected_phrases(
        {
            name: [[answer.text for answer in group] for group in groups]
            for name, groups in answers.items()
        },
        ["\n".join(message.content for message in prompt.messages) for prompt in prompts],
    )
