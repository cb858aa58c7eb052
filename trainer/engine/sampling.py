"""How a token is chosen: per-request parameters, one random stream a request."""

import hashlib
import math
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.transfers import on_device

#: Tokens looked at before the whole vocabulary is sorted: most nuclei lie within the first number,
#: nearly all within the second, and sorting 49,152 scores would cost more than the model does.
CANDIDATES = (256, 4096)
#: Returned for a row whose scores are NaN or infinite: no token can be chosen.
NO_TOKEN = -1
#: Stands for a token that the candidates so far do not decide.
UNDECIDED = -2


@dataclass(frozen=True)
class Sampling:
    """How to write one answer. Temperature 0 takes the likeliest token; top_k 0 means all."""

    max_tokens: int = 256
    temperature: float = 0.7
    top_p: float = 0.95
    top_k: int = 0
    repetition_penalty: float = 1.0
    # subtracted from the score of each token written so far: once, and as often as it was written
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
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
                (
                    not (abs(self.presence_penalty) <= 2 and abs(self.frequency_penalty) <= 2),
                    "presence_penalty and frequency_penalty must be from -2 to 2",
                ),
                (any(not stop for stop in self.stop), "stop strings must not be empty"),
            )
            if wrong
        ]
        if faults:
            raise ValueError("; ".join(faults))

    @property
    def penalises(self) -> bool:
        """Whether the tokens so far change the scores of the next one."""
        return (
            self.repetition_penalty != 1
            or self.presence_penalty != 0
            or self.frequency_penalty != 0
        )


@dataclass(frozen=True)
class Earlier:
    """The tokens before the next one: the prompt's, and those written so far."""

    prompt: Sequence[int] = ()
    written: Sequence[int] = ()


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


def choose(logits: Tensor, samplers: Sequence[Sampler], before: Sequence[Earlier]) -> list[int]:
    """Return one token for each row of `logits` (B, V); NO_TOKEN where the scores are not finite.

    In the order that everyone uses: repetition penalty on all tokens `before` (Keskar et al. 2019,
    Section 4.1), presence and frequency penalty on those written (OpenAI's API), temperature,
    top-k, top-p (Holtzman et al. 2020, Section 3.1).

    Scores stay on their device: the host reads the tokens, once, and once more for each further
    stage of CANDIDATES that a row's limits reach.
    """
    plain = not any(sampler.sampling.penalises for sampler in samplers)
    # a copy where it is written to: the caller's scores stay as they are
    scores = logits if plain else logits.to(torch.float32, copy=True)
    for row, sampler in enumerate(samplers):
        if sampler.sampling.penalises:
            scores[row] = penalised(scores[row], before[row], sampler.sampling)
    best = scores.max(dim=-1)
    tokens = best.indices
    drawn = [row for row, sampler in enumerate(samplers) if sampler.sampling.temperature > 0]
    draw = None
    if drawn:
        rows = on_device(drawn, scores.device)
        given = [samplers[row].sampling for row in drawn]
        heat = on_device([max(one.temperature, 1e-4) for one in given], scores.device)
        scaled = scores[rows].float() / heat[:, None]
        draw = Draw(scaled, given, [samplers[row].draw() for row in drawn])
        tokens = tokens.index_copy(0, rows, draw.first())
    chosen: list[int] = tokens.where(best.values.isfinite(), NO_TOKEN).tolist()
    if draw is not None:
        for row, token in zip(drawn, draw.rest([chosen[row] for row in drawn]), strict=True):
            chosen[row] = token
    return chosen


def penalised(scores: Tensor, before: Earlier, sampling: Sampling) -> Tensor:
    """Return scores (V,) with the penalties for the tokens `before` the next one."""
    if sampling.repetition_penalty != 1:
        where = on_device([*before.prompt, *before.written], scores.device)
        found, penalty = scores[where], sampling.repetition_penalty
        less = torch.where(found > 0, found / penalty, found * penalty)
        scores = scores.scatter(0, where, less)
    counts = Counter(before.written)
    if counts and (sampling.presence_penalty or sampling.frequency_penalty):
        amounts = [
            sampling.presence_penalty + sampling.frequency_penalty * count
            for count in counts.values()
        ]
        where = on_device(list(counts), scores.device)
        scores = scores.index_add(0, where, -on_device(amounts, scores.device).to(scores.dtype))
    return scores


def scored(logits: Tensor, tokens: Sequence[int], alternatives: Sequence[int]) -> list[TokenScore]:
    """Return how likely the model finds a token of each row of `logits` (B, V), before temperature
    and limits, with so many alternatives."""
    shares = logits.float().log_softmax(dim=-1)
    values, ids = shares.topk(min(max(alternatives), shares.shape[-1]), dim=-1)
    own = shares.gather(1, on_device([[token] for token in tokens], shares.device))
    # one read; ids and fp32 numbers are exact in fp64
    rows = torch.cat([own.double(), values.double(), ids.double()], dim=1).tolist()
    count = values.shape[1]
    return [
        TokenScore(
            token,
            logprob,
            tuple(zip(map(int, rest[count:]), rest[:count], strict=True))[:wanted],
        )
        for token, wanted, (logprob, *rest) in zip(tokens, alternatives, rows, strict=True)
    ]


class Draw:
    """One token a row of scores (R, V) that temperature has already been applied to, from one
    uniform number a row."""

    def __init__(self, scaled: Tensor, given: Sequence[Sampling], draws: Sequence[float]) -> None:
        self._scaled = scaled
        self._given = given
        self._draws = draws
        #: The logarithm of what all shares add up to, (R, 1).
        self._whole = scaled.logsumexp(dim=-1, keepdim=True)
        self._limited = [row for row, one in enumerate(given) if one.top_p < 1 or one.top_k]

    def first(self) -> Tensor:
        """Return tokens (R,), UNDECIDED where a row's limits reach farther than the first number of
        CANDIDATES."""
        rows = range(len(self._given))
        if not self._limited:
            return self._from_all(rows)
        if len(self._limited) == len(rows):
            return self._among(rows, CANDIDATES[0])
        free = sorted(set(rows) - set(self._limited))
        order = on_device([*self._limited, *free], self._scaled.device)
        found = torch.cat([self._among(self._limited, CANDIDATES[0]), self._from_all(free)])
        return torch.empty_like(found).index_copy(0, order, found)

    def rest(self, tokens: Sequence[int]) -> list[int]:
        """Return the tokens with those decided that `first` left open."""
        found = list(tokens)
        for wide in (*CANDIDATES[1:], None):
            left = [row for row, token in enumerate(found) if token == UNDECIDED]
            if not left:
                break
            more = self._in_order(left) if wide is None else self._among(left, wide)
            for row, token in zip(left, more.tolist(), strict=True):
                found[row] = token
        return found

    def _rows(self, tensor: Tensor, rows: Sequence[int]) -> Tensor:
        """Return some rows of a tensor; the tensor itself where all are meant."""
        if len(rows) == len(self._given):
            return tensor
        return tensor[on_device(rows, tensor.device)]

    def _numbers(self, rows: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Return top_k, top_p and the draw of rows, (R', 1) each, in fp64."""
        size = self._scaled.shape[-1]
        numbers = [
            # a limit beyond the vocabulary is none, whatever its size: a tensor holds no larger one
            (min(self._given[row].top_k or size, size), self._given[row].top_p, self._draws[row])
            for row in rows
        ]
        top_k, top_p, draw = on_device(numbers, self._scaled.device, torch.float64).split(1, dim=1)
        return top_k, top_p, draw

    def _among(self, rows: Sequence[int], wide: int) -> Tensor:
        """Return a token of the `wide` likeliest of each row, UNDECIDED where its limits reach
        farther."""
        wide = min(wide, self._scaled.shape[-1])
        top, ids = self._rows(self._scaled, rows).topk(wide, dim=-1)
        share = (top - self._rows(self._whole, rows)).exp().double()
        top_k, top_p, draw = self._numbers(rows)
        limited = top_k <= wide
        share = share * (torch.arange(wide, device=share.device) < top_k)
        mass = share.sum(dim=-1, keepdim=True)
        # top-p is a share of what top-k leaves; without top-k of everything, also beyond the
        # candidates
        picked = pick(nucleus(share, top_p, torch.where(limited, mass, 1.0)), draw)
        tokens = ids.gather(1, picked[:, None])
        return tokens.where(limited | (mass >= top_p), UNDECIDED)[:, 0]

    def _from_all(self, rows: Sequence[int]) -> Tensor:
        """Return a token of the whole vocabulary of each row, which has no limits."""
        share = self._rows(self._scaled, rows).double().softmax(dim=-1)
        return pick(share, self._numbers(rows)[2])

    def _in_order(self, rows: Sequence[int]) -> Tensor:
        """Return a token of the whole vocabulary of each row, sorted for its limits."""
        share, order = self._rows(self._scaled, rows).double().softmax(dim=-1).sort(descending=True)
        top_k, top_p, draw = self._numbers(rows)
        share = share * (torch.arange(share.shape[-1], device=share.device) < top_k)
        picked = pick(nucleus(share, top_p, share.sum(dim=-1, keepdim=True)), draw)
        return order.gather(1, picked[:, None])[:, 0]


def nucleus(share: Tensor, top_p: Tensor, whole: Tensor) -> Tensor:
    """`share` (B, K), sorted downwards, with nought behind the smallest head that holds top_p
    (B, 1) of the mass `whole` (B, 1)."""
    before = share.cumsum(dim=-1) - share
    return share * (before < top_p * whole)


def pick(share: Tensor, draw: Tensor) -> Tensor:
    """For each row of `share` (B, K) the index where its running sum passes its draw's (B, 1) part
    of the total: never an index without a share."""
    running = share.cumsum(dim=-1)
    target = draw * running[:, -1:]
    last = share.shape[-1] - 1 - (share > 0).flip(-1).int().argmax(dim=-1)
    return torch.minimum((running <= target).sum(dim=-1), last)
