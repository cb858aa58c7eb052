"""Renames Resolution to Adjudication; its table keeps its name."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('feedback', '0020_sampled_completions'),
    ]

    operations = [
        migrations.AlterModelTable(name='resolution', table='feedback_resolution'),
        migrations.RenameModel(old_name='Resolution', new_name='Adjudication'),
        migrations.AlterField(
            model_name='adjudication',
            name='completion',
            field=models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, primary_key=True, related_name='adjudication', serialize=False, to='feedback.completion'),
        ),
        migrations.AlterField(
            model_name='adjudication',
            name='project',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='adjudications', to='feedback.project'),
        ),
    ]
