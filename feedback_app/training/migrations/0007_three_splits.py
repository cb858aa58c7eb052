"""Columns for three splits; those of the old counts stay until they are divided."""

from django.db import migrations, models

SPLITS = [("train", "Training"), ("validation", "Validation"), ("test", "Test")]


def count():
    return models.PositiveIntegerField(default=0, db_default=0)


class Migration(migrations.Migration):
    dependencies = [("training", "0006_run_fit"), ("feedback", "0026_three_splits")]

    operations = [
        migrations.AddField("snapshot", "validation_up", count()),
        migrations.AddField("snapshot", "validation_down", count()),
        migrations.AddField("snapshot", "test_up", count()),
        migrations.AddField("snapshot", "test_down", count()),
        # longer, for the word 'validation': PostgreSQL changes the catalogue and no row
        migrations.AlterField(
            "snapshotitem", "split", models.CharField(max_length=10, choices=SPLITS)
        ),
    ]
