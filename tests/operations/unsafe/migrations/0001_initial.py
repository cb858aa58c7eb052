from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    operations = [
        migrations.CreateModel(
            name="Thing",
            fields=[
                ("id", models.BigAutoField(primary_key=True)),
                ("one", models.CharField(max_length=10)),
                ("two", models.CharField(max_length=10)),
                ("three", models.IntegerField(default=0)),
            ],
            options={"indexes": [models.Index(fields=["one"], name="thing_one")]},
        ),
    ]
