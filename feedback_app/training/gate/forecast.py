"""What the gate will have to go on, shown before a run starts."""

from dataclasses import dataclass

from feedback_app.training.gate.people.rule import pairs_enough
from feedback_app.training.gate.results import LEVEL
from feedback_app.training.gate.settings import GUARDS, GateSettings
from feedback_app.training.gate.statistics import prompts_needed, votes_needed

#: What a run is assumed to reach: an area under the ROC curve of its ranking, and a gain in the
#: predicted up-rate with the spread that its differences between prompts have had.
AREA, GAIN, GAIN_DEVIATION = 0.65, 0.05, 0.15
#: Spread of a share's difference between two versions over prompts, with two answers to each.
SHARE_DEVIATION = 0.35
#: Votes on training and validation prompts from which the predicted up-rate is worth trying.
VOTES_TO_PREDICT_FROM = 50


@dataclass(frozen=True)
class Forecast:
    """Test prompts and test votes that there are, and how many would be enough."""

    prompts: int
    prompts_enough: int
    votes: int
    votes_enough: int
    by_votes: bool

    @property
    def enough(self) -> bool:
        return self.prompts >= self.prompts_enough and (
            not self.by_votes or self.votes >= self.votes_enough
        )


def forecast(
    settings: GateSettings, *, prompts: int, ups: int, downs: int, learned: int
) -> Forecast:
    """Return what the gate can say with `prompts` test prompts, test votes of both kinds and
    `learned` votes on other prompts.

    `by_votes`: whether test votes decide, as the predicted up-rate is not chosen or has too few
    votes to learn from.
    """
    shares = [
        settings.margins[key]
        for key in ("finished", "repetition", "refusal")
        if key in settings.margins and GUARDS[key].scale == 100
    ]
    distances = [(GAIN_DEVIATION, GAIN), *((SHARE_DEVIATION, margin) for margin in shares)]
    pairs = pairs_enough() if settings.primary == "people" else 0
    votes = ups + downs
    return Forecast(
        prompts=prompts,
        prompts_enough=max(
            pairs,
            *(
                prompts_needed(deviation=deviation, distance=distance, level=LEVEL)
                for deviation, distance in distances
            ),
        ),
        votes=votes,
        votes_enough=votes_needed(
            area=AREA, liked_share=ups / votes if ups and downs else 0.5, level=LEVEL
        ),
        by_votes=settings.primary == "ranking"
        or (settings.primary == "auto" and learned < VOTES_TO_PREDICT_FROM),
    )
