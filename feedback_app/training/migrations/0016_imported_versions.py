from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('training', '0015_forecast_and_thresholds'),
    ]

    operations = [
        migrations.AlterField(
            model_name='run',
            name='trigger',
            field=models.CharField(choices=[('person', 'By hand'), ('schedule', 'By schedule'), ('erasure', 'After an erasure'), ('imported', 'Imported')], max_length=8),
        ),
    ]
