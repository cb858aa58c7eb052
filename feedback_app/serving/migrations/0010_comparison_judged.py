"""Indexes for lists and counts of large projects."""

from django.db import migrations, models

from feedback_app.db.index_operations import AddIndexWithoutLock, RemoveIndexWithoutLock


class Migration(migrations.Migration):
    # indexes are built while others write
    atomic = False

    dependencies = [
        ('feedback', '0025_indexes_at_scale'),
        ('serving', '0009_open_answers'),
    ]

    operations = [
        AddIndexWithoutLock(
            model_name='comparison',
            index=models.Index(condition=models.Q(('choice', ''), _negated=True), fields=['project', '-created_at', '-id'], name='comparison_judged'),
        ),
        RemoveIndexWithoutLock(
            model_name='comparison',
            name='comparison_tally',
        ),
    ]
