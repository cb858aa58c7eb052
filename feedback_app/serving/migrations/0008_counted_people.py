from django.db import migrations, models


def count_again(apps, schema_editor):
    """Empty the counts of running splits, which took several votes of a person: the next tick
    counts them again, one per person."""
    assignments = apps.get_model('serving', 'Assignment').objects
    assignments.filter(split__status='running').exclude(counted=None).update(counted=None, verdict='')


class Migration(migrations.Migration):

    dependencies = [
        ('serving', '0007_assignments'),
    ]

    operations = [
        migrations.AddField(
            model_name='assignment',
            name='voter',
            field=models.CharField(blank=True, max_length=40),
        ),
        migrations.AddConstraint(
            model_name='assignment',
            constraint=models.UniqueConstraint(condition=models.Q(('counted__isnull', False), models.Q(('voter', ''), _negated=True)), fields=('split', 'voter'), name='one_counted_vote_a_person'),
        ),
        migrations.RunPython(count_again, migrations.RunPython.noop),
    ]
