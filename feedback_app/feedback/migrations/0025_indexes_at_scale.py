"""Indexes for lists and counts of large projects."""

from django.db import migrations, models

from feedback_app.db.index_operations import AddIndexWithoutLock, RemoveIndexWithoutLock


class Migration(migrations.Migration):
    # indexes are built while others write
    atomic = False

    dependencies = [
        ('feedback', '0024_figures'),
    ]

    operations = [
        AddIndexWithoutLock(
            model_name='completion',
            index=models.Index(condition=models.Q(('contested', True), ('decided', '')), fields=['project', 'id', 'vote_count', 'queued'], name='contested_in_order'),
        ),
        AddIndexWithoutLock(
            model_name='completion',
            index=models.Index(fields=['project', 'version', 'id'], name='version_in_order'),
        ),
        AddIndexWithoutLock(
            model_name='completion',
            index=models.Index(condition=models.Q(('flagged', True)), fields=['project', 'id'], name='flagged_in_order'),
        ),
        AddIndexWithoutLock(
            model_name='golditem',
            index=models.Index(fields=['project', '-created_at', '-completion'], name='gold_newest'),
        ),
        AddIndexWithoutLock(
            model_name='prompt',
            index=models.Index(condition=models.Q(('topic', ''), _negated=True), fields=['project', 'content_hash'], name='prompt_topics'),
        ),
        AddIndexWithoutLock(
            model_name='skip',
            index=models.Index(condition=models.Q(('flag', True)), fields=['completion'], name='skip_flagged'),
        ),
        AddIndexWithoutLock(
            model_name='webhookdelivery',
            index=models.Index(fields=['webhook', 'status', '-id'], name='delivery_state'),
        ),
        RemoveIndexWithoutLock(
            model_name='completion',
            name='completion_contested',
        ),
        RemoveIndexWithoutLock(
            model_name='completion',
            name='completion_version',
        ),
        RemoveIndexWithoutLock(
            model_name='completion',
            name='completion_flagged',
        ),
    ]
