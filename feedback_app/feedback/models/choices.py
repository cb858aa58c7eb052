"""Enumerations that several models share, and the versions that are no adapters."""

from django.db import models

#: The version string of the base model itself; adapters are `<slug>@<n>`.
BASE_VERSION = "base"


#: What imported answers stand under: nobody knows which model gave them.
IMPORTED_VERSION = "import"


class Verdict(models.TextChoices):
    """What one person thinks of one completion."""

    UP = "up", "Up"
    DOWN = "down", "Down"


class Source(models.TextChoices):
    """Where a prompt, a completion or a vote came from. Only completions are sampled."""

    ANNOTATE = "annotate", "Annotation"
    DEMO = "demo", "Demo"
    IMPORT = "import", "Import"
    API = "api", "API"
    SAMPLED = "sampled", "Sampled"


class Split(models.TextChoices):
    """Which side of the gate an example is on; a hash of the prompt decides."""

    TRAIN = "train", "Training"
    HELDOUT = "heldout", "Held out"
