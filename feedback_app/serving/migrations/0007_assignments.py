import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    """Renames Seat to Assignment. The tables and constraints keep their names."""

    dependencies = [
        ('feedback', '0018_version_uploaded_index'),
        ('serving', '0006_live_version_claim'),
    ]

    operations = [
        migrations.AlterModelTable(name='seat', table='serving_seat'),
        migrations.AlterModelTable(name='seatanswer', table='serving_seatanswer'),
        migrations.RenameModel(old_name='Seat', new_name='Assignment'),
        migrations.RenameModel(old_name='SeatAnswer', new_name='AssignmentAnswer'),
        migrations.RenameField(model_name='assignmentanswer', old_name='seat', new_name='assignment'),
        migrations.AlterField(
            model_name='assignment',
            name='split',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='assignments', to='serving.trafficsplit'),
        ),
        migrations.AlterField(
            model_name='assignmentanswer',
            name='completion',
            field=models.OneToOneField(null=True, on_delete=django.db.models.deletion.CASCADE, related_name='assignment_answer', to='feedback.completion'),
        ),
    ]
