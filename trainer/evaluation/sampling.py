"""The answers of an evaluation: all versions answer the same prompts with the same seeds."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.artifacts.adapter_directory import CONFIG, WEIGHTS, Manifest
from trainer.data.chat import eos_ids, prompt_ids
from trainer.engine.batch import context_length
from trainer.engine.loading import load_served
from trainer.engine.sampling import Sampling
from trainer.evaluation.config import EvalConfig, EvalPrompt
from trainer.evaluation.generate import Answer
from trainer.evaluation.kl_probe import kl_sampling
from trainer.evaluation.measures.alone import answer_alone
from trainer.evaluation.stored_answers import Kind, Place, StoredAnswers
from trainer.evaluation.versions import Question, Versions
from trainer.models.loading import LoadedBase

_KL_ANSWER_TOKENS = 64
#: Part of every stored answer's key: raise it when a change of the decoder or the sampler makes
#: answers of earlier versions of this program wrong.
_SAMPLER = 1

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Version:
    """A measured version: the adapter directory and its verified manifest, or None twice for the
    base itself."""

    path: Path | None
    manifest: Manifest | None

    @property
    def weights(self) -> list[str] | None:
        """Return what identifies the adapter's weights and their scale; None for the base."""
        if self.manifest is None:
            return None
        return [self.manifest.files[name] for name in (WEIGHTS, CONFIG)]


@dataclass(frozen=True)
class Sampled:
    """One version's answers, a list per prompt, those that its KL is estimated on, and those to the
    probes, a list per probe: empty where the probe does not fit the model's context. All but those
    of the KL are without their reasoning."""

    answers: tuple[tuple[Answer, ...], ...]
    kl: tuple[Answer, ...]
    probes: tuple[tuple[Answer, ...], ...] = ()


def sampled(
    config: EvalConfig,
    versions: Mapping[str, Version],
    prompts: Sequence[EvalPrompt],
    stored: StoredAnswers,
    *,
    probes: Sequence[EvalPrompt] = (),
    report: Progress,
    check: Callable[[], None],
) -> dict[str, Sampled]:
    """Return all answers of all versions. Those that `stored` has are taken from there; the others
    are sampled in one mixed batch and stored one by one as they finish.

    The base is freed afterwards. Generation may store weights in another type than scoring
    computes in, and takes them out of the model; loading the base twice costs seconds and never
    holds two of them. `report` receives (phase, done, total), `check` is called before every pass
    through the model; what they raise ends the sampling, and finished answers are kept. Raises
    what Versions raises.
    """
    base = load_served(
        config.base_model,
        dtype=config.dtype,
        device=config.device,
        quantisation=config.quantisation,
    )
    report("loading", 1, 2)

    def context_of(prompt: EvalPrompt) -> tuple[int, ...]:
        return tuple(
            prompt_ids(base.tokenizer, prompt.as_dicts(), config.chat_template_kwargs, prompt.tools)
        )

    contexts = {prompt.id: context_of(prompt) for prompt in prompts}
    # a probe that is too long must not end every evaluation
    longest = context_length(base.model) - 1
    probe_contexts = {probe.id: ids for probe in probes if len(ids := context_of(probe)) <= longest}
    wanted: dict[Place, Question] = {}
    for name, version in versions.items():
        for prompt in prompts:
            for index in range(config.answers_per_prompt):
                place = Place(name, "answer", prompt.id, index)
                wanted[place] = _question(config, place, contexts[prompt.id])
        for probe_id, context in probe_contexts.items():
            for index in range(config.answers_per_prompt):
                place = Place(name, "probe", probe_id, index)
                wanted[place] = _question(config, place, context)
        if version.path is None:
            continue  # the base's distance to itself is 0
        for prompt in prompts[: config.kl_prompts]:
            place = Place(name, "kl", prompt.id, 0)
            wanted[place] = _question(config, place, contexts[prompt.id])
    model = _model_id(base)
    keys = {
        place: _key(model, versions[place.version], question) for place, question in wanted.items()
    }
    known = {place: stored.find(place, keys[place]) for place in wanted}
    found = {place: answer for place, answer in known.items() if answer is not None}
    missing = [place for place in wanted if place not in found]
    done, total = len(found), len(wanted)
    if found:
        report("sampling", done, total)

    def finished(number: int, answer: Answer) -> None:
        place = missing[number]
        stored.add(place, keys[place], answer)
        found[place] = answer

    if missing:
        paths = {name: version.path for name, version in versions.items()}
        Versions(base, paths).answers(
            [wanted[place] for place in missing],
            on_answer=finished,
            on_progress=lambda fresh, _: report("sampling", done + fresh, total),
            on_step=check,
        )

    def answers(name: str, kind: Kind, prompt_id: str) -> tuple[Answer, ...]:
        places = (Place(name, kind, prompt_id, n) for n in range(config.answers_per_prompt))
        return tuple(
            answer_alone(base.tokenizer, found[place]) for place in places if place in wanted
        )

    return {
        name: Sampled(
            answers=tuple(answers(name, "answer", prompt.id) for prompt in prompts),
            kl=tuple(
                found[place] for place in wanted if (place.version, place.kind) == (name, "kl")
            ),
            probes=tuple(answers(name, "probe", probe.id) for probe in probes),
        )
        for name in versions
    }


def answer_seed(seed: int, kind: Kind, prompt_id: str, index: int) -> int:
    """Return the seed of one answer. It depends neither on the version, so that versions are
    compared on the same random numbers, nor on the prompt's place in the file, so that more
    prompts or answers leave the others as they were."""
    digest = hashlib.sha256(json.dumps([seed, kind, prompt_id, index]).encode()).digest()
    return int.from_bytes(digest[:8], "big") % 2**63


def _question(config: EvalConfig, place: Place, prompt: tuple[int, ...]) -> Question:
    seed = answer_seed(config.seed, place.kind, place.prompt_id, place.index)
    if place.kind == "kl":
        return Question(place.version, prompt, kl_sampling(_KL_ANSWER_TOKENS, seed=seed))
    how = Sampling(config.max_tokens, config.temperature, config.top_p, seed=seed)
    return Question(place.version, prompt, how)


def _model_id(base: LoadedBase) -> list[object]:
    """Return what identifies the base and how it computes."""
    ends = sorted(eos_ids(base.model, base.tokenizer))
    packed = [] if base.quantisation is None else [base.quantisation]
    return [base.fingerprint, str(base.dtype), base.device.type, ends, *packed]


def _key(model: Sequence[object], version: Version, question: Question) -> str:
    """Return a hash of everything that an answer depends on."""
    how = question.sampling
    settings = [how.max_tokens, how.temperature, how.top_p, how.seed]
    parts = [_SAMPLER, model, version.weights, question.prompt, settings]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
