from django.db import migrations, models
from django.db.models import Q

from feedback_app.db.index_operations import AddIndexWithoutLock


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("feedback", "0042_finish_reason_complete"),
    ]

    operations = [
        migrations.AddField(
            model_name="lease",
            name="ahead",
            field=models.BooleanField(db_default=False, default=False),
        ),
        AddIndexWithoutLock(
            model_name="lease",
            index=models.Index(
                fields=["expires_at"],
                condition=Q(ahead=True),
                name="lease_ahead",
            ),
        ),
    ]
