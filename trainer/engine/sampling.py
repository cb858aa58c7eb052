"""How a token is chosen: per-request parameters, one random stream a request."""

import hashlib
import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

#: Tokens looked at before the whole vocabulary is sorted: nearly every nucleus is smaller, and
#: sorting 49,152 scores for each row would cost more than the model does.
CANDIDATES = 256
#: Returned for a row whose scores are NaN or infinite: no token can be chosen.
NO_TOKEN = -1


@dataclass(frozen=True)
class Sampling:
    """How to write one answer. Temperature 0 takes the likeliest token; top_k 0 means all."""

    max_tokens: int = 256
    temperature: float = 0.7
    top_p: float = 0.95
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        faults = [
            message
            for wrong, message in (
                (self.max_tokens < 1, "max_tokens must be at least 1"),
                (not 0 <= self.temperature < math.inf, "temperature must be 0 or more"),
                (not 0 < self.top_p <= 1, "top_p must be above 0 and at most 1"),
                (self.top_k < 0, "top_k must be 0 (all) or more"),
                (not 0 < self.repetition_penalty < math.inf, "repetition_penalty must be above 0"),
                (any(not stop for stop in self.stop), "stop strings must not be empty"),
            )
            if wrong
        ]
        if faults:
            raise ValueError("; ".join(faults))


class Sampler:
    """The state one answer's sampling needs: its parameters and its own random stream.

    No row shares a stream, so what one request gets does not depend on who else is running.
    """

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        seed = secrets.randbits(63) if sampling.seed is None else sampling.seed % 2**63
        self._random = torch.Generator().manual_seed(seed)

    def draw(self) -> float:
        """A uniform number in [0, 1)."""
        return float(torch.rand((), generator=self._random, dtype=torch.float64))


def derived_seed(seed: int | None, index: int) -> int | None:
    """The seed of answer `index` of a batch: unrelated to its neighbours', None stays None."""
    if seed is None:
        return None
    digest = hashlib.sha256(f"{seed}:{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % 2**63


def choose(logits: Tensor, samplers: Sequence[Sampler], seen: Sequence[Sequence[int]]) -> list[int]:
    """One token for each row of `logits` (B, V); NO_TOKEN where the scores are not finite.

    In the order that everyone uses: repetition penalty on `seen` (Keskar et al. 2019, Section
    4.1), temperature, top-k, top-p (Holtzman et al. 2020, Section 3.1).
    """
    # a copy: the caller's scores stay as they are
    scores = logits.to(torch.float32, copy=True)
    for row, sampler in enumerate(samplers):
        if sampler.sampling.repetition_penalty != 1.0:
            scores[row] = penalised(scores[row], seen[row], sampler.sampling.repetition_penalty)
    finite = scores.amax(dim=-1).isfinite().tolist()
    chosen = scores.argmax(dim=-1).tolist()
    drawn = [
        row
        for row, sampler in enumerate(samplers)
        if finite[row] and sampler.sampling.temperature > 0
    ]
    if drawn:
        heat = [max(samplers[row].sampling.temperature, 1e-4) for row in drawn]
        scaled = scores[drawn] / torch.tensor(heat, device=scores.device)[:, None]
        for row, token in zip(
            drawn, sampled(scaled.cpu(), [samplers[row] for row in drawn]), strict=True
        ):
            chosen[row] = token
    return [token if ok else NO_TOKEN for token, ok in zip(chosen, finite, strict=True)]


def penalised(scores: Tensor, seen: Sequence[int], penalty: float) -> Tensor:
    """Scores (V,) with every token of `seen` made less likely by `penalty`."""
    where = torch.tensor(seen, device=scores.device)
    found = scores[where]
    return scores.scatter(0, where, torch.where(found > 0, found / penalty, found * penalty))


def sampled(scaled: Tensor, samplers: Sequence[Sampler]) -> list[int]:
    """One token a row of scores (B, V) that temperature has already been applied to."""
    vocabulary = scaled.shape[-1]
    wide = min(CANDIDATES, vocabulary)
    top, ids = scaled.topk(wide, dim=-1)
    share = (top - scaled.logsumexp(dim=-1, keepdim=True)).exp().double()
    tokens = []
    for row, sampler in enumerate(samplers):
        top_k = sampler.sampling.top_k or vocabulary
        top_p = sampler.sampling.top_p
        draw = sampler.draw()
        if top_k <= wide:
            tokens.append(int(ids[row, nucleus(share[row, :top_k], top_p, draw)]))
        elif share[row].sum() >= top_p:
            # top-p of the whole vocabulary lies within the candidates
            tokens.append(int(ids[row, nucleus(share[row], top_p, draw, whole=1.0)]))
        else:
            tokens.append(from_all(scaled[row], top_k, top_p, draw))
    return tokens


def from_all(scores: Tensor, top_k: int, top_p: float, draw: float) -> int:
    """A token of the whole vocabulary; sorted only where a limit asks for it."""
    share = scores.double().softmax(dim=-1)
    if top_p >= 1 and top_k >= scores.shape[-1]:
        return pick(share, draw)
    share, order = share.sort(descending=True)
    return int(order[nucleus(share[:top_k], top_p, draw)])


def nucleus(share: Tensor, top_p: float, draw: float, whole: float | None = None) -> int:
    """An index into `share` (K,), sorted downwards: the smallest head that holds top_p of all.

    `whole` is the mass top_p refers to; None means what `share` sums to.
    """
    total = float(share.sum()) if whole is None else whole
    before = share.cumsum(0) - share
    return pick(share[before < top_p * total], draw)


def pick(share: Tensor, draw: float) -> int:
    """The index where the running sum of `share` (K,) passes `draw` of its total."""
    running = share.cumsum(0)
    index = torch.searchsorted(running, draw * running[-1], right=True)
    return min(int(index), share.shape[0] - 1)
