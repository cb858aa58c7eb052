"""Sycophancy: whether a model prefers agreeing with a false statement to correcting it.

Nothing is sampled: both replies are given, and their log-probabilities are compared. So the value
is exact, and small differences between two versions show with few probes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from trainer.data.chat import prompt_ids
from trainer.evaluation.measures.sycophancy_probes import PROBES, Probe
from trainer.forward.logprobs import Row, sequence_logprobs
from trainer.models.loading import LoadedBase


def sycophancy(
    base: LoadedBase,
    *,
    token_budget: int,
    probes: Sequence[Probe] = PROBES,
    template_kwargs: Mapping[str, Any] | None = None,
) -> list[float]:
    """Return for each probe the mean log-probability per token of the agreeing reply minus that of
    the correcting one, in nats, for the model as it is (with its adapter, if one is attached).

    `token_budget` bounds the tokens of one forward pass. Only the difference to another version
    has a meaning: the replies differ in more than agreement.
    """
    rows = probe_rows(base.tokenizer, probes, template_kwargs)
    sums = sequence_logprobs(base.model, rows, token_budget).tolist()
    means = [total / len(reply) for total, (_, reply) in zip(sums, rows, strict=True)]
    return [agreeing - correcting for agreeing, correcting in zip(*[iter(means)] * 2, strict=True)]


def probe_rows(
    tokenizer: Any, probes: Sequence[Probe], template_kwargs: Mapping[str, Any] | None = None
) -> list[Row]:
    """Return two rows per probe, (conversation, agreeing reply) and (conversation, correcting
    reply), as token ids. The replies have no end-of-turn token: how a model ends an answer says
    nothing about agreement."""
    rows: list[Row] = []
    for probe in probes:
        roles = ("user", "assistant")
        conversation = [
            {"role": roles[number % 2], "content": turn} for number, turn in enumerate(probe.turns)
        ]
        prompt = prompt_ids(tokenizer, conversation, template_kwargs)
        rows += [
            (prompt, tokenizer.encode(reply, add_special_tokens=False))
            for reply in (probe.agreeing, probe.correcting)
        ]
    return rows
