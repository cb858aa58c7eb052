"""How a token is chosen: per-request parameters, one random stream a request."""

import hashlib
import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

#: Tokens looked at before the whole vocabulary is sorted: most nuclei lie within the first number,
#: nearly all within the second, and sorting 49,152 scores would cost more than the model does.
CANDIDATES = (256, 4096)
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
    logprobs: int | None = None  # alternatives reported with each token; 0: the token alone
    ignore_eos: bool = False  # write max_tokens whatever comes: for measuring

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


@dataclass(frozen=True)
class TokenScore:
    """Log-probability in nats of a token that was chosen, and the likeliest (token, nats)."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


class Sampler:
    """The state one answer's sampling needs: its parameters and its own random stream.

    No row shares a stream, so what one request gets does not depend on who else is running.
    """

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        seed = secrets.randbits(63) if sampling.seed is None else sampling.seed % 2**63
        self._random = torch.Generator().manual_seed(seed)

    def draw(self) -> float:
        """Return a uniform number in [0, 1)."""
        return float(torch.rand((), generator=self._random, dtype=torch.float64))


def derived_seed(seed: int | None, index: int) -> int | None:
    """Return the seed of answer `index` of a batch: unrelated to its neighbours', None stays
    None."""
    if seed is None:
        return None
    digest = hashlib.sha256(f"{seed}:{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % 2**63


def choose(logits: Tensor, samplers: Sequence[Sampler], seen: Sequence[Sequence[int]]) -> list[int]:
    """Return one token for each row of `logits` (B, V); NO_TOKEN where the scores are not finite.

    In the order that everyone uses: repetition penalty on `seen` (Keskar et al. 2019, Section
    4.1), temperature, top-k, top-p (Holtzman et al. 2020, Section 3.1).
    """
    plain = all(sampler.sampling.repetition_penalty == 1.0 for sampler in samplers)
    # a copy where it is written to: the caller's scores stay as they are
    scores = logits if plain else logits.to(torch.float32, copy=True)
    for row, sampler in enumerate(samplers):
        if sampler.sampling.repetition_penalty != 1.0:
            scores[row] = penalised(scores[row], seen[row], sampler.sampling.repetition_penalty)
    best = scores.max(dim=-1)
    finite = best.values.isfinite().tolist()
    chosen = best.indices.tolist()
    drawn = [
        row
        for row, sampler in enumerate(samplers)
        if finite[row] and sampler.sampling.temperature > 0
    ]
    if drawn:
        heat = [max(samplers[row].sampling.temperature, 1e-4) for row in drawn]
        scaled = scores[drawn].float() / torch.tensor(heat, device=scores.device)[:, None]
        for row, token in zip(
            drawn, sampled(scaled.cpu(), [samplers[row] for row in drawn]), strict=True
        ):
            chosen[row] = token
    return [token if ok else NO_TOKEN for token, ok in zip(chosen, finite, strict=True)]


def penalised(scores: Tensor, seen: Sequence[int], penalty: float) -> Tensor:
    """Return scores (V,) with every token of `seen` made less likely by `penalty`."""
    where = torch.tensor(seen, device=scores.device)
    found = scores[where]
    return scores.scatter(0, where, torch.where(found > 0, found / penalty, found * penalty))


def scored(logits: Tensor, token: int, alternatives: int) -> TokenScore:
    """Return how likely the model finds a token of `logits` (V,), before temperature and limits."""
    shares = logits.float().log_softmax(dim=-1)
    values, ids = shares.topk(min(alternatives, len(shares)))
    top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
    return TokenScore(token, float(shares[token]), top)


def sampled(scaled: Tensor, samplers: Sequence[Sampler]) -> list[int]:
    """Return one token a row of scores (B, V) that temperature has already been applied to."""
    given = [sampler.sampling for sampler in samplers]
    draws = [sampler.draw() for sampler in samplers]
    whole = scaled.logsumexp(dim=-1, keepdim=True)
    tokens = [NO_TOKEN] * len(given)
    left = [row for row, one in enumerate(given) if one.top_p < 1 or one.top_k]
    for wide in CANDIDATES:
        if not left:
            break
        limits, drawn = [given[row] for row in left], [draws[row] for row in left]
        for row, token in zip(
            left, among(scaled[left], whole[left], limits, drawn, wide), strict=True
        ):
            tokens[row] = token
        left = [row for row in left if tokens[row] == NO_TOKEN]
    for row, token in enumerate(tokens):
        if token == NO_TOKEN:
            tokens[row] = from_all(scaled[row], given[row], draws[row])
    return tokens


def among(
    scaled: Tensor, whole: Tensor, given: Sequence[Sampling], draws: Sequence[float], wide: int
) -> list[int]:
    """Return a token of the `wide` likeliest of each row; NO_TOKEN where its limits reach farther.

    `whole` (B, 1): the logarithm of what all shares add up to.
    """
    vocabulary = scaled.shape[-1]
    wide = min(wide, vocabulary)
    top, ids = scaled.topk(wide, dim=-1)
    share = (top - whole).exp().double()
    top_k = torch.tensor([one.top_k or vocabulary for one in given])[:, None]
    top_p = torch.tensor([one.top_p for one in given], dtype=torch.float64)[:, None]
    limited = top_k <= wide
    share = share * (torch.arange(wide) < top_k)
    mass = share.sum(dim=-1, keepdim=True)
    # top-p is a share of what top-k leaves; without top-k of everything, also beyond the candidates
    picked = pick(nucleus(share, top_p, torch.where(limited, mass, 1.0)), draws)
    tokens = ids.gather(1, picked[:, None])
    found: list[int] = tokens.where(limited | (mass >= top_p), NO_TOKEN)[:, 0].tolist()
    return found


def from_all(scores: Tensor, sampling: Sampling, draw: float) -> int:
    """Return a token of the whole vocabulary (V,); sorted only where a limit asks for it."""
    share = scores.double().softmax(dim=-1)
    top_k = sampling.top_k or len(share)
    if sampling.top_p >= 1 and top_k >= len(share):
        return int(pick(share[None], [draw]))
    share, order = share.sort(descending=True)
    share = share[None, :top_k]
    limit = torch.tensor([[sampling.top_p]], dtype=torch.float64)
    return int(order[pick(nucleus(share, limit, share.sum(dim=-1, keepdim=True)), [draw])])


def nucleus(share: Tensor, top_p: Tensor, whole: Tensor) -> Tensor:
    """`share` (B, K), sorted downwards, with nought behind the smallest head that holds top_p
    (B, 1) of the mass `whole` (B, 1)."""
    before = share.cumsum(dim=-1) - share
    return share * (before < top_p * whole)


def pick(share: Tensor, draws: Sequence[float]) -> Tensor:
    """For each row of `share` (B, K) the index where its running sum passes its draw's part of the
    total: never an index without a share."""
    running = share.cumsum(dim=-1)
    target = torch.tensor(draws, dtype=share.dtype)[:, None] * running[:, -1:]
    last = share.shape[-1] - 1 - (share > 0).flip(-1).int().argmax(dim=-1)
    return torch.minimum((running <= target).sum(dim=-1), last)
