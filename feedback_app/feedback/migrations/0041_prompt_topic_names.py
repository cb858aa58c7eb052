from django.db import migrations, models
from django.db.models import Q

from feedback_app.db.index_operations import AddIndexWithoutLock


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("feedback", "0040_chat_settings"),
    ]

    operations = [
        AddIndexWithoutLock(
            model_name="prompt",
            index=models.Index(
                fields=["project", "topic"],
                condition=~Q(topic=""),
                name="prompt_topic_names",
            ),
        ),
    ]
