"""The conversation log, branches of conversations, and what an admin tries in one."""

import django.db.models.deletion
from django.db import migrations, models

from feedback_app.db.index_operations import AddIndexWithoutLock


class Migration(migrations.Migration):
    # indexes are built while others write
    atomic = False

    dependencies = [
        ('serving', '0010_comparison_judged'),
    ]

    operations = [
        migrations.AddField(
            model_name='conversation',
            name='removed_at',
            field=models.DateTimeField(editable=False, null=True),
        ),
        migrations.AddField(
            model_name='conversation',
            name='system_prompt',
            field=models.TextField(null=True),
        ),
        migrations.AddField(
            model_name='conversation',
            name='temperature',
            field=models.FloatField(null=True),
        ),
        migrations.AddField(
            model_name='turn',
            name='parent',
            field=models.ForeignKey(db_index=False, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='children', to='serving.turn'),
        ),
        migrations.AlterField(
            model_name='turn',
            name='position',
            field=models.PositiveIntegerField(null=True),
        ),
        AddIndexWithoutLock(
            model_name='conversation',
            index=models.Index(condition=models.Q(('removed_at', None)), fields=['project', '-updated_at', '-id'], name='conversation_log'),
        ),
        AddIndexWithoutLock(
            model_name='turn',
            index=models.Index(fields=['parent'], name='turn_children'),
        ),
    ]
