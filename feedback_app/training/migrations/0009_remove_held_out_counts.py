"""The counts that the counts by split replace go.

They have a default first, so that the migration can be reversed: the rows then get it until the
migration before divides them back.
"""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("training", "0008_divide_held_out_items")]

    operations = [
        migrations.AlterField("snapshot", "heldout_up", models.PositiveIntegerField(default=0)),
        migrations.AlterField("snapshot", "heldout_down", models.PositiveIntegerField(default=0)),
        migrations.RemoveField("snapshot", "heldout_up"),
        migrations.RemoveField("snapshot", "heldout_down"),
    ]
