from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('feedback', '0036_project_deletion'),
    ]

    operations = [
        migrations.AddField(
            model_name='project',
            name='conversation_days',
            field=models.PositiveSmallIntegerField(blank=True, null=True),
        ),
    ]
