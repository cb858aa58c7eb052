"""Enumerations shared by several models, and versions that are no adapters."""

from django.db import models

#: The version of the base model; adapters are `<slug>@<n>`.
BASE_VERSION = "base"

#: The version of imported answers, whose model is unknown.
IMPORTED_VERSION = "import"

#: The version of answers that a person has corrected (votes/corrections.py).
EDITED_VERSION = "edited"


class Verdict(models.TextChoices):
    """One person's opinion of one completion."""

    UP = "up", "Up"
    DOWN = "down", "Down"


class Source(models.TextChoices):
    """The origin of a prompt, completion or vote. Only completions are sampled."""

    ANNOTATE = "annotate", "Annotation"
    DEMO = "demo", "Demo"
    IMPORT = "import", "Import"
    API = "api", "API"
    SAMPLED = "sampled", "Sampled"


class Split(models.TextChoices):
    """What a prompt's examples are used for; a keyed hash of the prompt decides.

    Training examples are learned from. Validation examples choose among the adapters of a run, so
    the adapter that is chosen looks better on them than it is. Test examples therefore choose
    nothing: only the gate reads them.
    """

    TRAIN = "train", "Training"
    VALIDATION = "validation", "Validation"
    TEST = "test", "Test"
