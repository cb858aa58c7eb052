from django.db import migrations, models

from feedback_app.db.index_operations import AddIndexWithoutLock


class Migration(migrations.Migration):
    """A column that the database fills, one that may be empty, and an index without a lock."""

    atomic = False
    dependencies = [("privacy", "0007_alter_column")]

    operations = [
        migrations.AddField("thing", "five", models.IntegerField(db_default=5)),
        migrations.AddField("thing", "six", models.IntegerField(null=True)),
        AddIndexWithoutLock("thing", models.Index(fields=["three"], name="thing_three")),
    ]
