"""Log-probabilities of the texts that are the same in every evaluation: the neutral passages and
the sycophancy probes. They depend on a version's weights alone, so that each version is scored
once: again and again for the base and the live version, they took half of an evaluation's time.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.artifacts.adapter_directory import fsync
from trainer.evaluation.measures.neutral_text import PASSAGES
from trainer.evaluation.measures.sycophancy import probe_rows, sycophancy
from trainer.evaluation.measures.sycophancy_probes import PROBES
from trainer.forward.logprobs import Row, sequence_logprobs
from trainer.models.loading import LoadedBase

#: Part of every file's key: raise it when a change of the forward pass makes stored values wrong.
_FORMAT = 1


@dataclass(frozen=True)
class FixedTextScores:
    """One version's values: `neutral`, nats per token, one per passage; `sycophancy`, nats per
    token, one per probe (measures/sycophancy.py)."""

    neutral: tuple[float, ...]
    sycophancy: tuple[float, ...]

    @property
    def finite(self) -> bool:
        return all(map(math.isfinite, [*self.neutral, *self.sycophancy]))


class FixedTexts:
    """The passages of some languages and all probes as token ids, scored under any version.

    `cache` is a directory of values that evaluations share, one file a version; None scores always.
    `evaluation` is the directory of this one: an attempt that was killed while it wrote a value
    left part of a file, which the next attempt replaces.
    """

    def __init__(
        self,
        base: LoadedBase,
        languages: Sequence[str],
        *,
        cache: Path | None,
        evaluation: Path,
        token_budget: int,
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self._base, self._cache, self._budget = base, cache, token_budget
        self._writer = hashlib.sha256(str(evaluation.resolve()).encode()).hexdigest()[:16]
        self._template_kwargs = template_kwargs
        passages = [
            base.tokenizer.encode(passage.text, add_special_tokens=False)
            for passage in PASSAGES
            if passage.language in languages
        ]
        self._passages: list[Row] = [(tokens[:1], tokens[1:]) for tokens in passages]
        self._texts = [passages, probe_rows(base.tokenizer, PROBES, template_kwargs)]

    def scores(self, weights: Sequence[str] | None) -> FixedTextScores:
        """Return the values of the base as it is, with its adapter if one is attached.

        `weights` are the hashes that identify the adapter, None for the bare base. A file that is
        damaged counts as absent. Values that are not finite are returned and not stored. Raises
        OSError.
        """
        path = None if self._cache is None else self._cache / f"{self._key(weights)}.json"
        known = None if path is None else self._read(path)
        if known is not None:
            return known
        found = FixedTextScores(
            tuple(self._neutral()),
            tuple(
                sycophancy(
                    self._base, token_budget=self._budget, template_kwargs=self._template_kwargs
                )
            ),
        )
        if path is not None and found.finite:
            _write(path, found, writer=self._writer)
        return found

    def _neutral(self) -> list[float]:
        """Mean log-probability a token of each passage, in nats, without a chat around it."""
        sums = sequence_logprobs(self._base.model, self._passages, self._budget).tolist()
        return [total / len(rest) for total, (_, rest) in zip(sums, self._passages, strict=True)]

    def _key(self, weights: Sequence[str] | None) -> str:
        """Return a hash of everything that the values depend on."""
        base = self._base
        model = [base.fingerprint, str(base.dtype), base.device.type, base.quantisation]
        parts = [_FORMAT, model, weights, self._texts]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]

    def _read(self, path: Path) -> FixedTextScores | None:
        try:
            raw = json.loads(path.read_bytes())
            found = FixedTextScores(_floats(raw["neutral"]), _floats(raw["sycophancy"]))
        except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
            return None
        whole = (len(self._passages), len(PROBES)) == (len(found.neutral), len(found.sycophancy))
        return found if whole and found.finite else None


def _write(path: Path, found: FixedTextScores, *, writer: str) -> None:
    """Write the file so that it is complete whenever it exists. Evaluations of one version may
    write at the same time: each writer has a partial file of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{writer}.partial")
    values = {"neutral": found.neutral, "sycophancy": found.sycophancy}
    try:
        partial.write_text(json.dumps(values, allow_nan=False), encoding="utf-8")
        fsync(partial)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    partial.replace(path)


def _floats(raw: Any) -> tuple[float, ...]:
    if not isinstance(raw, list) or not all(type(value) is float for value in raw):
        raise ValueError("no list of numbers")
    return tuple(raw)
