"""The predicted up-rate: a small calibrated model of P(up | prompt, answer), fitted on votes.

A logistic regression reads what the base model makes of an answer (embeddings.py) and a few
properties of its text. It is scored on votes that it did not learn from, and says so: a model with
an AUC near 0.5 has found nothing that the votes depend on. It knows only answers like those that
were voted on; a new kind of answer gets a probability, but one without support.

scikit-learn is imported on use: it takes a second, and training does not need it.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from trainer.chats.settings import TRAINED, ChatSettings
from trainer.data.examples import Example, read_examples
from trainer.data.tokenise import Tokenised, tokenise_for
from trainer.evaluation.embeddings import pooled_states
from trainer.evaluation.generate import Answer
from trainer.evaluation.measures.alone import answer_alone
from trainer.evaluation.text_metrics import repeats
from trainer.forward.logprobs import Row
from trainer.models.loading import LoadedBase

#: Votes that each class needs, and prompts that they must be spread over.
FEWEST_VOTES, FEWEST_PROMPTS = 10, 5
#: Votes that are used: a model of this size gains little from more, and each is a forward pass.
MOST_VOTES = 2000
#: Votes from which on calibration may follow the data (isotonic): a sigmoid has two parameters,
#: steps need some votes each.
ISOTONIC_VOTES = 200
_FOLDS = 5
#: Inverse strengths of the regularisation that cross-validation chooses from.
_STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
#: Votes for each principal component, and the most components.
_VOTES_PER_COMPONENT, _MOST_COMPONENTS = 8, 64
_MAX_LENGTH = 4096

Floats = NDArray[np.float64]
OnStep = Callable[[], None]


@dataclass(frozen=True)
class Answered:
    """An answer: token ids of prompt and completion, its text, and whether it ended by itself."""

    row: Row
    text: str
    finished: bool


@dataclass(frozen=True)
class UpRateModel:
    """A fitted model. `auc` and `brier` are out-of-fold: each vote is predicted by a model that saw
    no vote on its prompt, and for the AUC an up is compared with the downs of its fold.
    `brier_of_mean` is the Brier score of always predicting the mean. All three count each vote by
    its weight; `ups` and `downs` are numbers of votes."""

    auc: float
    brier: float
    brier_of_mean: float
    ups: int
    downs: int
    _predictor: "_Predictor"

    def predict(
        self,
        base: LoadedBase,
        rows: Sequence[Row],
        texts: Sequence[str],
        finished: Sequence[bool],
        *,
        on_step: OnStep | None = None,
    ) -> list[float]:
        """Return P(up) of each answer, in (0, 1). Adapters must be switched off."""
        answers = [Answered(*answer) for answer in zip(rows, texts, finished, strict=True)]
        if not answers:
            return []
        return self._predictor(_features(base, answers, on_step)).tolist()


def fit_up_rate(
    base: LoadedBase,
    examples: Sequence[Answered],
    labels: Sequence[bool],
    weights: Sequence[float],
    groups: Sequence[str],
    *,
    seed: int,
    on_step: OnStep | None = None,
) -> UpRateModel | None:
    """Fit a model of P(up) on voted answers; the same votes and seed give the same model.

    `groups` names the prompt of each answer: answers to one prompt are never on both sides of a
    fold, or the model would be scored on what it has seen. The classes are not balanced, since a
    probability has to reflect how often people vote up. `on_step` is called before every forward
    pass; what it raises ends the fit.

    Returns None where a class has fewer than FEWEST_VOTES votes or these are on fewer than
    FEWEST_PROMPTS prompts. Raises ValueError where an adapter is switched on.
    """
    chosen = _chosen(groups, seed)
    up = np.array([labels[index] for index in chosen], dtype=bool)
    codes = np.unique([groups[index] for index in chosen], return_inverse=True)[1]
    if min(up.sum(), (~up).sum()) < FEWEST_VOTES or _spread(up, codes) < FEWEST_PROMPTS:
        return None
    features = _features(base, [examples[index] for index in chosen], on_step)
    votes = _Votes(features, up, np.array([weights[index] for index in chosen], float), codes)
    return _scored(votes, seed)


@dataclass(frozen=True)
class Ratings:
    """What the report says about predicted up-rates: the model's figures (None without a model) and
    P(up) of each version's answers, in the order in which they were given (no versions without a
    model)."""

    up_model: Mapping[str, float] | None
    up: Mapping[str, Sequence[float]]


def rate_answers(
    base: LoadedBase,
    votes_file: Path,
    answers: Mapping[str, Sequence[Answer]],
    *,
    seed: int,
    chat: ChatSettings | None = None,
    on_step: OnStep | None = None,
) -> Ratings:
    """Fit on the votes of a file of examples, where it exists, and predict P(up) of the answers of
    each version, given without their reasoning. Votes are read without it too, whatever training
    does with it: people judge the answer. Raises Refused for a faulty file."""
    if not votes_file.exists():
        return Ratings(None, {})
    raw = {example.id: example for example in read_examples(votes_file)}
    whole = replace(chat or ChatSettings(), reasoning=TRAINED)
    votes = tokenise_for(base, list(raw.values()), max_length=_MAX_LENGTH, chat=whole).examples
    model = fit_up_rate(
        base,
        [_voted(base.tokenizer, vote, raw[vote.id]) for vote in votes],
        [vote.label for vote in votes],
        [vote.weight for vote in votes],
        [vote.prompt_key for vote in votes],
        seed=seed,
        on_step=on_step,
    )
    if model is None:
        return Ratings(None, {})
    up = {
        name: model.predict(
            base,
            [(answer.prompt_ids, answer.token_ids) for answer in found],
            [answer.text for answer in found],
            [answer.finish_reason == "stop" for answer in found],
            on_step=on_step,
        )
        for name, found in answers.items()
    }
    figures = ("auc", "brier", "brier_of_mean", "ups", "downs")
    return Ratings({figure: getattr(model, figure) for figure in figures}, up)


def _voted(tokenizer: Any, vote: Tokenised, example: Example) -> Answered:
    """Return the answer that was voted on, without its reasoning."""
    finish: Literal["stop", "length"] = "length" if example.finish_reason == "length" else "stop"
    given = Answer(vote.prompt, vote.completion, example.completion, finish)
    alone = answer_alone(tokenizer, given)
    return Answered((alone.prompt_ids, alone.token_ids), alone.text, alone.finish_reason == "stop")


# -- features


def _features(base: LoadedBase, answers: Sequence[Answered], on_step: OnStep | None) -> Floats:
    """Return (n, 2·hidden + text features): what the answer is about, how it differs from the
    prompt, and its text."""
    states = pooled_states(base, [answer.row for answer in answers], on_step=on_step)
    text = [_text_features(answer) for answer in answers]
    return np.hstack([states.completion, states.completion - states.prompt, text]).astype(float)


def _text_features(answer: Answered) -> tuple[float, ...]:
    # The square allows for the length that people like best to be in the middle.
    length = math.log1p(len(answer.row[1]))
    return length, length**2, float(answer.finished), float(repeats(answer.text))


_TEXT_FEATURES = 4


# -- fitting and scoring


@dataclass(frozen=True)
class _Votes:
    """Features (n, f), votes (n,), their weights (n,) and the numbers of their prompts (n,)."""

    features: Floats
    up: NDArray[np.bool_]
    weights: Floats
    groups: NDArray[np.intp]

    def take(self, rows: NDArray[np.intp]) -> Self:
        return type(self)(self.features[rows], self.up[rows], self.weights[rows], self.groups[rows])

    @property
    def mean(self) -> float:
        """Return the share of ups, by weight."""
        return float(np.average(self.up, weights=self.weights))


def _chosen(groups: Sequence[str], seed: int) -> list[int]:
    """Return the indices of at most MOST_VOTES votes in their order, all of a prompt or, but for
    one prompt, none."""
    if len(groups) <= MOST_VOTES:
        return list(range(len(groups)))
    names = sorted(set(groups))
    order = np.random.default_rng(seed).permutation(len(names))
    place = {names[name]: int(number) for number, name in enumerate(order)}
    by_prompt = sorted(range(len(groups)), key=lambda index: (place[groups[index]], index))
    return sorted(by_prompt[:MOST_VOTES])


def _spread(up: NDArray[np.bool_], groups: NDArray[np.intp]) -> int:
    """Return how many prompts have votes of the class that is on fewer prompts."""
    return min(len(np.unique(groups[up])), len(np.unique(groups[~up])))


def _scored(votes: _Votes, seed: int) -> UpRateModel:
    """Fit on all votes, and score the same procedure, choices included, on votes it never saw."""
    from sklearn.metrics import brier_score_loss, roc_auc_score

    predicted = np.empty(len(votes.up))
    aucs, pairs = [], []
    for train, test in _folds(votes, seed):
        held_out = votes.take(test)
        predicted[test] = _fitted(votes.take(train), seed)(held_out.features)
        # An up and a down are compared within their fold. Where the training part happens to have
        # more ups, the held-out part has fewer: across folds, predictions without content would
        # rank below chance.
        weight = held_out.weights
        pairs.append(float(weight[held_out.up].sum() * weight[~held_out.up].sum()))
        if pairs[-1] > 0:
            aucs.append(roc_auc_score(held_out.up, predicted[test], sample_weight=weight))
    constant = np.full(len(votes.up), votes.mean)
    return UpRateModel(
        auc=float(np.average(aucs, weights=[count for count in pairs if count > 0])),
        brier=float(brier_score_loss(votes.up, predicted, sample_weight=votes.weights)),
        brier_of_mean=float(brier_score_loss(votes.up, constant, sample_weight=votes.weights)),
        ups=int(votes.up.sum()),
        downs=int((~votes.up).sum()),
        _predictor=_fitted(votes, seed),
    )


@dataclass(frozen=True)
class _Predictor:
    """Features (n, f) to P(up) (n,)."""

    logits: Callable[[Floats], Floats]
    calibrated: Callable[[Floats], Floats]

    def __call__(self, features: Floats) -> Floats:
        return self.calibrated(self.logits(features))


def _fitted(votes: _Votes, seed: int) -> _Predictor:
    """Choose the regularisation and calibrate on out-of-fold scores, then fit on all votes."""
    if _spread(votes.up, votes.groups) < 2:  # no two folds with both classes
        return _Predictor(lambda features: np.zeros(len(features)), _constant(votes.mean))
    scores = np.empty((len(_STRENGTHS), len(votes.up)))
    for train, test in _folds(votes, seed):
        for number, logits in enumerate(_regressions(votes.take(train), _STRENGTHS, seed)):
            scores[number, test] = logits(votes.features[test])
    losses = [np.average(_log_loss(row, votes.up), weights=votes.weights) for row in scores]
    best = int(np.argmin(losses))
    (logits,) = _regressions(votes, _STRENGTHS[best : best + 1], seed)
    return _Predictor(logits, _calibration(scores[best], votes))


def _folds(votes: _Votes, seed: int) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield (training rows, held-out rows); a prompt's votes are on one side, and both classes are
    spread over the folds."""
    from sklearn.model_selection import StratifiedGroupKFold

    count = min(_FOLDS, _spread(votes.up, votes.groups))
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    for train, test in splitter.split(votes.features, votes.up, votes.groups):
        if len(test):
            yield train, test


def _regressions(
    votes: _Votes, strengths: Sequence[float], seed: int
) -> list[Callable[[Floats], Floats]]:
    """Return a function of features to logits for each inverse strength of regularisation."""
    from sklearn.linear_model import LogisticRegression

    if votes.up.all() or not votes.up.any():
        return [lambda features: np.zeros(len(features))] * len(strengths)
    reduce = _reduction(votes.features, seed)
    inputs = reduce(votes.features)
    # To mean 1: the scale of weights is arbitrary and must not change the regularisation.
    weights = votes.weights / votes.weights.mean()

    def fitted(strength: float) -> Callable[[Floats], Floats]:
        model = LogisticRegression(C=strength, max_iter=1000)
        model.fit(inputs, votes.up, sample_weight=weights)
        return lambda features: np.asarray(model.decision_function(reduce(features)))

    return [fitted(strength) for strength in strengths]


def _reduction(features: Floats, seed: int) -> Callable[[Floats], Floats]:
    """Return standardisation and, for the hidden states, projection on as many principal components
    as the number of votes supports.

    Components keep their relative sizes, so that regularisation shrinks the small ones, which are
    mostly noise, first. Values beyond those of the votes are set to the nearest of them: how people
    like answers ten times as long as any that they saw is unknown.
    """
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    votes = len(features)
    components = max(2, min(votes // _VOTES_PER_COMPONENT, _MOST_COMPONENTS, votes - 1))
    scaler = StandardScaler().fit(features)
    pca = PCA(components, svd_solver="randomized", random_state=seed)
    pca.fit(scaler.transform(features)[:, :-_TEXT_FEATURES])
    size = max(float(np.sqrt(pca.explained_variance_[0])), 1e-9)

    def projected(features: Floats) -> Floats:
        standard = scaler.transform(features)
        states = pca.transform(standard[:, :-_TEXT_FEATURES]) / size
        return np.hstack([states, standard[:, -_TEXT_FEATURES:]])

    known = projected(features)
    low, high = known.min(axis=0), known.max(axis=0)
    return lambda features: np.clip(projected(features), low, high)


# -- calibration


def _calibration(scores: Floats, votes: _Votes) -> Callable[[Floats], Floats]:
    """Return a rising function of scores to probabilities, fitted on out-of-fold scores."""
    if len(scores) < ISOTONIC_VOTES:
        return _sigmoid(scores, votes)
    from sklearn.isotonic import IsotonicRegression

    # No finite number of votes shows a probability of 0 or 1 (Laplace's rule of succession).
    edge = 1 / (len(scores) + 2)
    steps = IsotonicRegression(y_min=edge, y_max=1 - edge, out_of_bounds="clip")
    steps.fit(scores, votes.up, sample_weight=votes.weights)
    return lambda found: np.asarray(steps.predict(found))


def _sigmoid(scores: Floats, votes: _Votes) -> Callable[[Floats], Floats]:
    """Fit 1/(1 + exp(−(a·score + b))) with the smoothed targets of Platt 1999; the mean of the
    votes where scores do not rise with them."""
    from sklearn.linear_model import LogisticRegression

    ups, downs = int(votes.up.sum()), int((~votes.up).sum())
    targets = np.where(votes.up, (ups + 1) / (ups + 2), 1 / (downs + 2))
    # A target between 0 and 1 is an up and a down that share the vote's weight.
    both = np.concatenate([scores, scores])[:, None]
    labels = np.repeat([True, False], len(scores))
    weights = np.concatenate([votes.weights * targets, votes.weights * (1 - targets)])
    model = LogisticRegression(C=np.inf, max_iter=1000).fit(both, labels, sample_weight=weights)
    if model.coef_[0, 0] <= 0:
        return _constant(votes.mean)
    return lambda found: np.asarray(model.predict_proba(found[:, None])[:, 1])


def _constant(value: float) -> Callable[[Floats], Floats]:
    return lambda found: np.full(len(found), value)


def _log_loss(logits: Floats, up: NDArray[np.bool_]) -> Floats:
    """Return −log P(vote) of each vote in nats."""
    return np.logaddexp(0.0, np.where(up, -logits, logits))
