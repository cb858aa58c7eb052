from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('feedback', '0006_fill_queue_columns'),
    ]

    operations = [
        migrations.RemoveIndex(
            model_name='completion',
            name='completion_queue',
        ),
        migrations.AddIndex(
            model_name='completion',
            index=models.Index(condition=models.Q(('flagged', False), ('queued', True)), fields=['project', 'vote_count', 'queue_position', 'id'], name='queue_balanced'),
        ),
        migrations.AddIndex(
            model_name='completion',
            index=models.Index(condition=models.Q(('flagged', False), ('queued', True)), fields=['project', 'vote_count', '-version_number', 'queue_position', 'id'], name='queue_newest'),
        ),
        migrations.AddIndex(
            model_name='completion',
            index=models.Index(condition=models.Q(('flagged', False), ('queued', True)), fields=['project', 'vote_count', 'id'], name='queue_uploaded'),
        ),
        migrations.AddIndex(
            model_name='completion',
            index=models.Index(condition=models.Q(('contested', True), ('flagged', False), ('queued', True)), fields=['project', 'vote_count', 'queue_position', 'id'], name='queue_contested'),
        ),
        migrations.AddIndex(
            model_name='completion',
            index=models.Index(condition=models.Q(('flagged', False), ('queued', True), ('unsure__isnull', False)), fields=['project', 'vote_count', 'unsure', 'id'], name='queue_unsure'),
        ),
        migrations.AddIndex(
            model_name='completion',
            index=models.Index(condition=models.Q(('flagged', False), ('queued', True)), fields=['project', 'version', 'vote_count', 'queue_position', 'id'], name='queue_version'),
        ),
        migrations.AddIndex(
            model_name='completion',
            index=models.Index(condition=models.Q(('flagged', False), ('queued', True)), fields=['project', 'source', 'vote_count', 'queue_position', 'id'], name='queue_source'),
        ),
        migrations.AddIndex(
            model_name='completion',
            index=models.Index(condition=models.Q(('flagged', False), ('queued', True)), fields=['project', 'topic', 'vote_count', 'queue_position', 'id'], name='queue_topic'),
        ),
    ]
