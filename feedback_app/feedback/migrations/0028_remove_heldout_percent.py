"""The two percentages get their bounds, and the one that they replace goes."""

from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    dependencies = [("feedback", "0027_divide_held_out_prompts")]

    operations = [
        migrations.RemoveConstraint("project", "heldout_5_to_50"),
        migrations.RemoveField("project", "heldout_percent"),
        migrations.AddConstraint(
            "project",
            models.CheckConstraint(
                condition=Q(validation_percent__gte=5) & Q(validation_percent__lte=30),
                name="validation_5_to_30",
            ),
        ),
        migrations.AddConstraint(
            "project",
            models.CheckConstraint(
                condition=Q(test_percent__gte=5) & Q(test_percent__lte=50),
                name="test_5_to_50",
            ),
        ),
    ]
