"""Forms of the annotation page: votes and skips."""

from django import forms

from feedback_app.feedback.models import Verdict
from feedback_app.web.forms import SharedFields, StrictForm


class VoteForm(StrictForm):
    """A verdict; `chips` says that the reasons were sent, even if there are none.

    `first` says that the page showed the item as one that the person has not judged.
    """

    verdict = forms.ChoiceField(choices=Verdict.choices)
    first = forms.BooleanField(required=False)
    reasons = forms.Field(required=False)
    chips = forms.BooleanField(required=False)
    comment = forms.CharField(required=False)

    def reasons_given(self) -> list[str] | None:
        """Return the reasons that were sent, or None to leave them as they are."""
        given = list(self.data.getlist("reasons"))
        return given if given or self.cleaned_data["chips"] else None

    def comment_given(self) -> str | None:
        return self.cleaned_data["comment"] or None


class CorrectedVoteForm(VoteForm):
    """A verdict; with a down, the answer as it should have been."""

    correction = forms.CharField(required=False, strip=False)


for form in (VoteForm, CorrectedVoteForm):
    form.base_fields = SharedFields(form.base_fields)


class SkipForm(StrictForm):
    """A skip or flag; the comment field, if filled, is its reason."""

    flag = forms.BooleanField(required=False)
    # of the form's verdicts
    correction = forms.CharField(required=False)
    first = forms.BooleanField(required=False)
    reason = forms.CharField(required=False, max_length=200)
    comment = forms.CharField(required=False)

    def why(self) -> str:
        """Return the reason."""
        return str(self.cleaned_data["reason"] or self.cleaned_data["comment"])


class OwnVoteForm(StrictForm):
    """Another verdict, in the list of one's own votes; `back` is the state of the list."""

    verdict = forms.ChoiceField(choices=Verdict.choices)
    back = forms.CharField(required=False, max_length=1_000)


class PracticeForm(StrictForm):
    """A verdict on a decided answer, which is not stored."""

    completion = forms.IntegerField(min_value=1, max_value=2**63 - 1)
    verdict = forms.ChoiceField(choices=Verdict.choices)
