"""Log-probabilities of completions, token by token: every shared token is computed once, and the
head is spent on completion positions only."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from trainer.backends import backend_for
from trainer.backends.base import Forest, KeysValues, Layout
from trainer.forward.attention import NAME
from trainer.forward.head import causal_lm_of, head, token_logprobs
from trainer.forward.parallel import MIN_PACK_TOKENS, concurrent_packs, parallel_map
from trainer.forward.segments import MIN_SHARED_TOKENS, branches, common_prefix, forest
from trainer.transfers import on_device, to_device

Row = tuple[Sequence[int], Sequence[int]]  # (prompt ids, completion ids)


@dataclass(frozen=True)
class TokenLogprobs:
    """log π of every completion token in nats, (N,) fp32, row after row; `owners` (N,) names the
    row of each, `lengths` the number of each row's tokens."""

    values: Tensor
    owners: Tensor
    lengths: tuple[int, ...]

    @property
    def rows(self) -> int:
        return len(self.lengths)

    def sums(self) -> Tensor:
        """Return log π(y|x) of each row, (B,)."""
        zeros = torch.zeros(self.rows, device=self.values.device)
        return zeros.index_add(0, self.owners, self.values)

    def split(self) -> list[Tensor]:
        """Return the values of each row."""
        return list(self.values.split(self.lengths))


@dataclass(frozen=True)
class Scored:
    """Rows that have run through the model: their log-probabilities, and what it takes to score
    other completions of the same prompts without running the prompts again: `_ends` (B, D) are the
    hidden states that each prompt ends with."""

    logprobs: TokenLogprobs
    _model: Any
    _rows: Sequence[Row]
    _forest: Forest
    _ends: Tensor
    _kept: KeysValues | None

    def others(self, completions: Sequence[Sequence[int]]) -> TokenLogprobs:
        """Return log π of another completion on each row's prompt, without gradient: each row's
        prompt is read from the keys and values that the row has left behind."""
        if self._kept is None:  # the model shares nothing: whole rows
            rows = [(x, y) for (x, _), y in zip(self._rows, completions, strict=True)]
            with torch.no_grad():
                return score(self._model, rows).logprobs
        with torch.no_grad(), as_forest(self._model):
            # The first token is predicted by the prompt's last hidden state, which is known.
            hidden = self._ends
            longer = [row for row, answer in enumerate(completions) if len(answer) > 1]
            where = {row: [row] for row in range(len(self._rows))}
            if longer:
                tree = branches(
                    self._forest,
                    [(row, len(self._rows[row][0])) for row in longer],
                    [tuple(completions[row][:-1]) for row in longer],
                )
                layout = Layout(tree, stored=self._kept)
                more = _hidden_states(self._model, tree, layout, range(tree.length))
                for number, row in enumerate(longer):
                    columns = tree.columns(number, 0, len(completions[row]) - 1)
                    where[row] += [len(self._rows) + column for column in columns]
                hidden = torch.cat([hidden, more])
            return _gather(self._model, hidden, [where[row] for row in where], completions)


def score(model: Any, rows: Sequence[Row], *, keep: bool = False) -> Scored:
    """Return log π of each row's completion tokens given its prompt; with gradients where enabled.

    `keep` holds on to keys and values, for `Scored.others`. Raises ValueError for an empty prompt
    or completion.
    """
    if any(not prompt or not completion for prompt, completion in rows):
        raise ValueError("a row needs at least one prompt token and one completion token")
    if not shares_prefixes(model):
        return _score_separately(model, rows)
    return _score_packed(model, rows, keep=keep)


def _score_packed(model: Any, rows: Sequence[Row], *, keep: bool) -> Scored:
    # The last token predicts nothing that is scored.
    tree = forest([(*prompt, *completion)[:-1] for prompt, completion in rows])
    kept = KeysValues() if keep else None
    columns = [
        # The token at position t is predicted by the hidden state at t − 1.
        tree.columns(row, len(prompt) - 1, len(prompt) + len(completion) - 1)
        for row, (prompt, completion) in enumerate(rows)
    ]
    wanted = sorted({column for row in columns for column in row})
    place = {column: number for number, column in enumerate(wanted)}
    places = [[place[column] for column in row] for row in columns]
    with as_forest(model):
        hidden = _hidden_states(model, tree, Layout(tree, keep=kept), wanted)
    found = _gather(model, hidden, places, [completion for _, completion in rows])
    ends = hidden.detach()[on_device([row[0] for row in places], hidden.device)]
    return Scored(found, model, rows, tree, ends, kept)


def batched_logprobs(model: Any, rows: Sequence[Row], token_budget: int) -> list[Tensor]:
    """Return log π of the completion tokens of any number of rows, without gradient, in packs."""
    count = concurrent_packs(next(model.parameters()).device, token_budget)
    groups = packs(rows, token_budget // count, parts=count)
    shares_prefixes(model)  # tested once, before several threads start

    def one(pack: Sequence[int]) -> list[Tensor]:
        return score(model, [rows[index] for index in pack]).logprobs.split()

    found: dict[int, Tensor] = {}
    with torch.no_grad():
        for pack, values in zip(groups, parallel_map(one, groups, concurrency=count), strict=True):
            found.update(zip(pack, values, strict=True))
    return [found[index] for index in range(len(rows))]


def sequence_logprobs(model: Any, rows: Sequence[Row], token_budget: int) -> Tensor:
    """Return log π(y|x) of any number of rows in nats, (B,), without gradient."""
    return torch.stack([values.sum() for values in batched_logprobs(model, rows, token_budget)])


def packs(rows: Sequence[Row], token_budget: int, *, parts: int = 1) -> list[list[int]]:
    """Return groups of row indices. Rows with a common prefix are in one group, and a group's
    tokens, shared ones counted once, are within the budget; a longer row is a group of its own.

    With `parts` groups running at a time, groups are of about equal size and, with enough tokens,
    their number is a multiple of `parts`.
    """
    if not rows:
        return []
    whole = [(*prompt, *completion) for prompt, completion in rows]
    order = sorted(range(len(rows)), key=lambda row: whole[row])
    shared = [0, *(common_prefix(whole[a], whole[b]) for a, b in pairwise(order))]
    extra = [len(whole[row]) - known for row, known in zip(order, shared, strict=True)]
    total = sum(extra)
    if parts > 1 and total < 2 * MIN_PACK_TOKENS:
        parts = 1
    wanted = parts * max(1, -(-total // (token_budget * parts)))

    def cut(limit: int, worth: int = MIN_SHARED_TOKENS) -> list[tuple[int, list[int]]]:
        """Neighbours that share so many tokens, in pieces of at most `limit` tokens."""
        pieces: list[tuple[int, list[int]]] = []
        for row, known, more in zip(order, shared, extra, strict=True):
            if pieces and known >= worth and pieces[-1][0] + more <= limit:
                pieces[-1] = (pieces[-1][0] + more, [*pieces[-1][1], row])
            else:
                pieces.append((len(whole[row]), [row]))
        return pieces

    def distribute(pieces: list[tuple[int, list[int]]]) -> list[tuple[int, list[int]]]:
        """Assign pieces to groups, largest first, each to the smallest group or, where that is
        full, to a new one."""
        groups: list[tuple[int, list[int]]] = [(0, []) for _ in range(wanted)]
        for size, piece in sorted(pieces, key=lambda piece: -piece[0]):
            used, least = min(enumerate(groups), key=lambda group: group[1][0])[::-1]
            if used[0] and used[0] + size > token_budget:
                groups.append((size, piece))
            else:
                groups[least] = (used[0] + size, used[1] + piece)
        return [group for group in groups if group[1]]

    if wanted == 1 or parts == 1:
        return [rows_of for _, rows_of in cut(token_budget, worth=0)]
    # Cutting what is shared costs computing it twice, not cutting it may leave a group too large.
    ways = [distribute(cut(token_budget)), distribute(cut(min(token_budget, -(-total // wanted))))]
    best = min(ways, key=lambda groups: -(-len(groups) // parts) * max(groups)[0])
    return [group for _, group in best]


def shares_prefixes(model: Any) -> bool:
    """Return whether rows of this model may share prefixes: its state consists of keys and values,
    its attention can be replaced, and packed rows get the same values as separate rows.

    The last condition is tested once a model, since an architecture may pass unknown arguments to
    its attention; such a model runs row by row.
    """
    causal_lm = causal_lm_of(model)
    if causal_lm not in _SHARES:
        _SHARES[causal_lm] = (
            bool(getattr(causal_lm, "_supports_attention_backend", False))
            and not bool(getattr(causal_lm, "_is_stateful", False))
            and _agrees(causal_lm)
        )
    return _SHARES[causal_lm]


_SHARES: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()
#: Relative difference of log-probabilities that rounding may cause, in bf16 too.
_ROUNDING = 0.02


def _agrees(model: Any) -> bool:
    """Return whether two rows with a common prefix get the same values packed and separately."""
    vocabulary = model.get_input_embeddings().num_embeddings
    shared = [number % vocabulary for number in range(3, 3 + 2 * MIN_SHARED_TOKENS)]
    rows: list[Row] = [(shared, shared[:3]), (shared, shared[5:9])]
    with torch.no_grad():
        plain = _score_separately(model, rows).logprobs.values
        try:
            packed = _score_packed(model, rows, keep=False).logprobs.values
        except (TypeError, ValueError, AttributeError, KeyError):
            return False
    apart = (plain - packed).abs().mean()
    return bool(apart <= _ROUNDING * (1 + plain.abs().mean()))


def _gather(
    model: Any,
    hidden: Tensor,
    columns: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
) -> TokenLogprobs:
    """Return log-probabilities from hidden states (T, D): column c of row i predicts its c-th
    token."""
    device = hidden.device
    lengths = tuple(len(row) for row in completions)
    places, targets, owners = on_device(
        [
            [column for row in columns for column in row],
            [token for row in completions for token in row],
            [row for row, length in enumerate(lengths) for _ in range(length)],
        ],
        device,
    )
    found = token_logprobs(head(model), hidden[places], targets)
    return TokenLogprobs(found, owners, lengths)


def _hidden_states(model: Any, tree: Forest, layout: Layout, wanted: Sequence[int]) -> Tensor:
    """Last hidden states of some columns of a packed stream, (N, D)."""
    device = next(model.parameters()).device
    decoder = causal_lm_of(model).get_decoder()
    ids, positions = on_device([tree.ids], device), on_device([tree.positions], device)
    columns = on_device(wanted, device)
    found = backend_for(device).hidden_states(decoder, ids, positions, layout, columns)
    if found is not None:
        return found
    every: Tensor = decoder(
        input_ids=ids, position_ids=positions, use_cache=False, layout=layout
    ).last_hidden_state
    return every[0][columns]


@contextmanager
def as_forest(model: Any) -> Iterator[None]:
    """Replace the model's attention by forest attention inside the context. Several threads may be
    inside at the same time; the last one to leave restores the model's own."""
    decoder = causal_lm_of(model).get_decoder()
    with _LOCK:
        inside, before = _INSIDE.get(decoder, (0, decoder.config._attn_implementation))
        _INSIDE[decoder] = inside + 1, before
        decoder.config._attn_implementation = NAME
    try:
        yield
    finally:
        with _LOCK:
            inside, before = _INSIDE.pop(decoder)
            if inside > 1:
                _INSIDE[decoder] = inside - 1, before
            else:
                decoder.config._attn_implementation = before


_LOCK = Lock()
#: How many are inside `as_forest`, by decoder, and the attention that it had before.
_INSIDE: WeakKeyDictionary[Any, tuple[int, str]] = WeakKeyDictionary()


def _score_separately(model: Any, rows: Sequence[Row]) -> Scored:
    """`score` for models without shared prefixes: padded on the right, without a mask, since
    causality hides the padding from every position that is scored."""
    device = next(model.parameters()).device
    width = max(len(prompt) + len(completion) for prompt, completion in rows) - 1
    ids = torch.zeros((len(rows), width), dtype=torch.long)
    columns = []
    for number, (prompt, completion) in enumerate(rows):
        length = len(prompt) + len(completion) - 1
        ids[number, :length] = torch.tensor([*prompt, *completion][:-1])
        start = number * width + len(prompt) - 1
        columns.append(range(start, start + len(completion)))
    hidden = causal_lm_of(model).get_decoder()(input_ids=to_device(ids, device), use_cache=False)
    flat = hidden.last_hidden_state.flatten(0, 1)
    found = _gather(model, flat, columns, [completion for _, completion in rows])
    return Scored(found, model, rows, Forest((), (), (), ()), flat[:0], None)
