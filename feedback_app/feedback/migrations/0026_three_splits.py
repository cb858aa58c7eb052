"""Columns for three splits; `heldout_percent` stays until its values are divided."""

from django.db import migrations, models

SPLITS = [("train", "Training"), ("validation", "Validation"), ("test", "Test")]


class Migration(migrations.Migration):
    dependencies = [("feedback", "0025_indexes_at_scale")]

    operations = [
        migrations.AddField(
            "project",
            "validation_percent",
            models.PositiveSmallIntegerField(default=10, db_default=10),
        ),
        migrations.AddField(
            "project", "test_percent", models.PositiveSmallIntegerField(default=20, db_default=20)
        ),
        # longer, for the word 'validation': PostgreSQL changes the catalogue and no row
        migrations.AlterField("prompt", "split", models.CharField(max_length=10, choices=SPLITS)),
        migrations.AlterField("example", "split", models.CharField(max_length=10, choices=SPLITS)),
    ]
