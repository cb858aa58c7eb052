"""All tables of this app, as a fresh installation makes them in one step.

Applying the migrations named below one by one took most of the first start. Databases that have
begun them go on with them.
"""

import django.core.validators
import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models

import feedback_app.feedback.models.projects


class Migration(migrations.Migration):
    replaces = [
        ("feedback", "0001_initial"),
        ("feedback", "0002_source_api"),
        ("feedback", "0003_import_jobs"),
        ("feedback", "0004_fill_completion_hash"),
        ("feedback", "0005_queue_columns"),
        ("feedback", "0006_fill_queue_columns"),
        ("feedback", "0007_queue_indexes"),
        ("feedback", "0008_guidelines_versions"),
        ("feedback", "0009_first_guidelines"),
        ("feedback", "0010_vote_limits"),
        ("feedback", "0011_gold"),
        ("feedback", "0012_resolutions"),
        ("feedback", "0013_webhooks"),
        ("feedback", "0014_import_options"),
        ("feedback", "0015_import_labels_and_gold"),
        ("feedback", "0016_undone_index"),
        ("feedback", "0017_examples_list_indexes"),
        ("feedback", "0018_version_uploaded_index"),
        ("feedback", "0019_source_sampled"),
        ("feedback", "0020_sampled_completions"),
        ("feedback", "0021_adjudication"),
        ("feedback", "0022_plain_labels"),
        ("feedback", "0023_project_split_key"),
        ("feedback", "0024_figures"),
        ("feedback", "0025_indexes_at_scale"),
        ("feedback", "0026_three_splits"),
        ("feedback", "0027_divide_held_out_prompts"),
        ("feedback", "0028_remove_heldout_percent"),
        ("feedback", "0029_probes"),
        ("feedback", "0030_sampling_cancelled"),
        ("feedback", "0031_project_archived"),
        ("feedback", "0032_prompt_retired"),
        ("feedback", "0033_notifications"),
        ("feedback", "0034_corrections"),
        ("feedback", "0035_project_training"),
    ]

    initial = True

    dependencies = [
        ("accounts", "__first__"),
    ]

    operations = [
        migrations.CreateModel(
            name="Project",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("votes_per_hour", models.PositiveIntegerField(default=3000)),
                ("person_share", models.PositiveSmallIntegerField(default=50)),
                ("person_floor", models.PositiveIntegerField(default=500)),
                ("edited_weight", models.PositiveSmallIntegerField(db_default=100, default=100)),
                ("gold_every", models.PositiveSmallIntegerField(default=0)),
                (
                    "gold_feedback",
                    models.CharField(
                        choices=[
                            ("never", "Never"),
                            ("at_once", "Immediately"),
                            ("after", "When the queue is empty"),
                        ],
                        default="never",
                        max_length=7,
                    ),
                ),
                ("gold_least", models.PositiveSmallIntegerField(default=70)),
                ("gold_window", models.PositiveSmallIntegerField(default=10)),
                (
                    "slug",
                    models.SlugField(
                        unique=True,
                        validators=[
                            django.core.validators.RegexValidator(
                                "^[a-z0-9][a-z0-9-]*\\Z",
                                "Use lower-case letters, digits and hyphens only.",
                            )
                        ],
                    ),
                ),
                ("name", models.CharField(max_length=100)),
                ("base_model", models.CharField(max_length=200)),
                ("system_prompt", models.TextField(blank=True)),
                ("guidelines", models.TextField(blank=True)),
                ("guidelines_number", models.PositiveIntegerField(default=0, editable=False)),
                (
                    "reasons",
                    models.JSONField(default=feedback_app.feedback.models.projects.default_reasons),
                ),
                ("overlap", models.PositiveSmallIntegerField(default=1)),
                (
                    "queue_order",
                    models.CharField(
                        choices=[
                            ("balanced", "Balanced by prompt"),
                            ("newest", "Newest version first"),
                            ("contested", "Disagreements first"),
                            ("unsure", "Where the model is unsure"),
                            ("uploaded", "Upload order"),
                        ],
                        default="balanced",
                        max_length=9,
                    ),
                ),
                ("validation_percent", models.PositiveSmallIntegerField(db_default=10, default=10)),
                ("test_percent", models.PositiveSmallIntegerField(db_default=20, default=20)),
                (
                    "split_key",
                    models.CharField(
                        default=feedback_app.feedback.models.projects.split_key_new,
                        editable=False,
                        max_length=64,
                    ),
                ),
                ("max_tokens", models.PositiveIntegerField(default=128)),
                ("temperature", models.FloatField(default=0.8)),
                ("top_p", models.FloatField(default=0.95)),
                ("live_version", models.CharField(default="base", max_length=80)),
                ("votes_told", models.BooleanField(default=False)),
                (
                    "launcher",
                    models.CharField(blank=True, db_default="", default="", max_length=20),
                ),
                ("run_hours", models.FloatField(blank=True, null=True)),
                (
                    "priority",
                    models.CharField(
                        choices=[("low", "Low"), ("normal", "Normal"), ("high", "High")],
                        db_default="normal",
                        default="normal",
                        editable=False,
                        max_length=6,
                    ),
                ),
                ("archived_at", models.DateTimeField(editable=False, null=True)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("overlap__gte", 1), ("overlap__lte", 10)),
                        name="overlap_1_to_10",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("validation_percent__gte", 5), ("validation_percent__lte", 30)
                        ),
                        name="validation_5_to_30",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("test_percent__gte", 5), ("test_percent__lte", 50)),
                        name="test_5_to_50",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("person_share__gte", 1), ("person_share__lte", 100)),
                        name="person_share_1_to_100",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("edited_weight__gte", 1), ("edited_weight__lte", 100)),
                        name="edited_weight_1_to_100",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("gold_least__lte", 100), ("gold_window__gte", 1)),
                        name="gold_least_of_window",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Pause",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("right", models.PositiveSmallIntegerField()),
                ("of", models.PositiveSmallIntegerField()),
                ("since", models.DateTimeField(null=True)),
                ("votes_set_aside", models.PositiveIntegerField(default=0)),
                ("examples", models.JSONField(default=list)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("lifted_at", models.DateTimeField(null=True)),
                ("restored", models.BooleanField(default=False)),
                (
                    "lifted_by",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="pauses",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "project",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="pauses",
                        to="feedback.project",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("lifted_at", None)),
                        fields=("project", "user"),
                        name="one_pause_a_person",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="NotificationChoice",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("listed", models.JSONField(default=list)),
                ("mailed", models.JSONField(default=list)),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="notification_choices",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "project",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="notification_choices",
                        to="feedback.project",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("user", "project"), name="one_notification_choice_per_project"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Notification",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("run.finished", "A run ends with a new version"),
                            ("run.failed", "A run fails"),
                            ("gate.passed", "A version passes the gate"),
                            (
                                "gate.failed",
                                "A version fails the gate, or there is not enough evidence",
                            ),
                            ("release", "Another version goes live"),
                            ("rollback", "An earlier version goes live again"),
                            ("split.decided", "A traffic split ends by its own rule"),
                            ("schedule.skipped", "The schedule is due and cannot start a run"),
                            ("quota.reached", "A share link has used up its messages or votes"),
                            ("engine.down", "No engine of the base model answers"),
                            ("disk.low", "The disk for adapters is nearly full"),
                        ],
                        max_length=20,
                    ),
                ),
                ("key", models.CharField(max_length=80)),
                ("text", models.CharField(max_length=300)),
                ("path", models.CharField(max_length=200)),
                ("listed", models.BooleanField(default=True)),
                ("mail_due", models.BooleanField(default=False)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="notifications",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "project",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="notifications",
                        to="feedback.project",
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(
                        condition=models.Q(("listed", True)),
                        fields=["user", "-id"],
                        name="notification_list",
                    ),
                    models.Index(
                        condition=models.Q(("mail_due", True)),
                        fields=["user"],
                        name="notification_mail",
                    ),
                    models.Index(fields=["created_at"], name="notification_age"),
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("user", "key"), name="one_notification_per_event"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="ImportJob",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("attempt", models.PositiveSmallIntegerField(default=0)),
                ("heartbeat_at", models.DateTimeField(null=True)),
                ("name", models.CharField(max_length=200)),
                ("path", models.CharField(max_length=1000)),
                ("uploaded", models.BooleanField(default=False)),
                ("dry_run", models.BooleanField(default=False)),
                ("columns", models.JSONField(default=dict)),
                ("labels_up", models.JSONField(default=list)),
                ("labels_down", models.JSONField(default=list)),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("preview", "Not started"),
                            ("queued", "Waiting"),
                            ("running", "Importing"),
                            ("done", "Done"),
                            ("failed", "Failed"),
                            ("cancelled", "Stopped"),
                        ],
                        default="preview",
                        max_length=9,
                    ),
                ),
                ("offset", models.PositiveBigIntegerField(default=0)),
                ("share", models.FloatField(default=0)),
                ("rows", models.PositiveBigIntegerField(default=0)),
                ("imported", models.PositiveBigIntegerField(default=0)),
                ("gold", models.PositiveBigIntegerField(default=0)),
                ("prompts", models.PositiveBigIntegerField(default=0)),
                ("duplicates", models.PositiveBigIntegerField(default=0)),
                ("refused", models.PositiveBigIntegerField(default=0)),
                ("error", models.TextField(blank=True)),
                ("finished_at", models.DateTimeField(null=True)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "by",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="import_jobs",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "project",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="import_jobs",
                        to="feedback.project",
                    ),
                ),
            ],
            options={
                "indexes": [models.Index(fields=["project", "-id"], name="import_recent")],
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("status__in", ["queued", "running"])),
                        fields=("project",),
                        name="one_import_at_a_time",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="GuidelinesVersion",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("number", models.PositiveIntegerField()),
                ("text", models.TextField(blank=True)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "by",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "project",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="guidelines_versions",
                        to="feedback.project",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("project", "number"), name="guidelines_number")
                ],
            },
        ),
        migrations.CreateModel(
            name="Figures",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("heartbeat_at", models.DateTimeField(null=True)),
                ("name", models.CharField(max_length=40)),
                (
                    "status",
                    models.CharField(
                        choices=[("queued", "Waiting"), ("running", "Counting"), ("done", "Done")],
                        default="queued",
                        max_length=8,
                    ),
                ),
                ("attempt", models.PositiveIntegerField(default=0)),
                ("value", models.JSONField(null=True)),
                ("counted_at", models.DateTimeField(null=True)),
                (
                    "project",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="figures",
                        to="feedback.project",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("project", "name"), name="one_row_per_figures")
                ],
            },
        ),
        migrations.CreateModel(
            name="Prompt",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("messages", models.JSONField()),
                ("content_hash", models.CharField(max_length=64)),
                ("topic", models.CharField(blank=True, max_length=60)),
                (
                    "split",
                    models.CharField(
                        choices=[
                            ("train", "Training"),
                            ("validation", "Validation"),
                            ("test", "Test"),
                        ],
                        max_length=10,
                    ),
                ),
                (
                    "source",
                    models.CharField(
                        choices=[
                            ("annotate", "Annotation"),
                            ("demo", "Demo"),
                            ("import", "Import"),
                            ("api", "API"),
                            ("sampled", "Sampled"),
                        ],
                        default="import",
                        max_length=10,
                    ),
                ),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("retired_at", models.DateTimeField(editable=False, null=True)),
                (
                    "project",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="prompts",
                        to="feedback.project",
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(
                        condition=models.Q(("retired_at", None)),
                        fields=["project", "-id"],
                        name="prompts_active",
                    ),
                    models.Index(
                        condition=models.Q(("retired_at__isnull", False)),
                        fields=["project", "-retired_at", "-id"],
                        name="prompts_retired",
                    ),
                    models.Index(
                        condition=models.Q(("topic", ""), _negated=True),
                        fields=["project", "content_hash"],
                        name="prompt_topics",
                    ),
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("project", "content_hash"), name="one_prompt_per_hash"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Sampling",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("attempt", models.PositiveSmallIntegerField(default=0)),
                ("heartbeat_at", models.DateTimeField(null=True)),
                ("version", models.CharField(default="base", max_length=80)),
                ("answers_per_prompt", models.PositiveSmallIntegerField(default=2)),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("queued", "Waiting"),
                            ("running", "Sampling"),
                            ("done", "Done"),
                            ("failed", "Failed"),
                            ("cancelled", "Cancelled"),
                        ],
                        default="queued",
                        max_length=9,
                    ),
                ),
                ("done", models.PositiveIntegerField(default=0)),
                ("total", models.PositiveIntegerField(default=0)),
                ("error", models.TextField(blank=True)),
                ("started_at", models.DateTimeField(null=True)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "project",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="samplings",
                        to="feedback.project",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("done__lte", models.F("total"))),
                        name="sampling_done_in_total",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Completion",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("decided", models.CharField(blank=True, max_length=4)),
                ("gold", models.BooleanField(default=False)),
                ("text", models.TextField()),
                ("content_hash", models.CharField(blank=True, max_length=64)),
                ("version", models.CharField(max_length=80)),
                ("system_prompt", models.TextField(blank=True)),
                ("prompt_token_ids", models.JSONField(null=True)),
                ("token_ids", models.JSONField(null=True)),
                (
                    "finish_reason",
                    models.CharField(
                        choices=[
                            ("stop", "Ended by itself"),
                            ("length", "Cut at the token limit"),
                            ("aborted", "Stopped by the reader or a fault"),
                        ],
                        max_length=8,
                    ),
                ),
                (
                    "source",
                    models.CharField(
                        choices=[
                            ("annotate", "Annotation"),
                            ("demo", "Demo"),
                            ("import", "Import"),
                            ("api", "API"),
                            ("sampled", "Sampled"),
                        ],
                        max_length=10,
                    ),
                ),
                ("queued", models.BooleanField(default=False)),
                ("queue_position", models.PositiveBigIntegerField(default=0)),
                ("vote_count", models.PositiveSmallIntegerField(default=0)),
                ("contested", models.BooleanField(default=False)),
                ("flagged", models.BooleanField(default=False)),
                ("version_number", models.PositiveIntegerField(default=0)),
                ("topic", models.CharField(blank=True, max_length=60)),
                ("unsure", models.FloatField(null=True)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "project",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="completions",
                        to="feedback.project",
                    ),
                ),
                (
                    "prompt",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="completions",
                        to="feedback.prompt",
                    ),
                ),
                (
                    "sampling",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="completions",
                        to="feedback.sampling",
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(
                        condition=models.Q(("flagged", False), ("queued", True)),
                        fields=["project", "vote_count", "queue_position", "id"],
                        name="queue_balanced",
                    ),
                    models.Index(
                        condition=models.Q(("flagged", False), ("queued", True)),
                        fields=["project", "vote_count", "-version_number", "queue_position", "id"],
                        name="queue_newest",
                    ),
                    models.Index(
                        condition=models.Q(("flagged", False), ("queued", True)),
                        fields=["project", "vote_count", "id"],
                        name="queue_uploaded",
                    ),
                    models.Index(
                        condition=models.Q(
                            ("contested", True), ("flagged", False), ("queued", True)
                        ),
                        fields=["project", "vote_count", "queue_position", "id"],
                        name="queue_contested",
                    ),
                    models.Index(
                        condition=models.Q(
                            ("flagged", False), ("queued", True), ("unsure__isnull", False)
                        ),
                        fields=["project", "vote_count", "unsure", "id"],
                        name="queue_unsure",
                    ),
                    models.Index(
                        condition=models.Q(("flagged", False), ("queued", True)),
                        fields=["project", "version", "vote_count", "queue_position", "id"],
                        name="queue_version",
                    ),
                    models.Index(
                        condition=models.Q(("flagged", False), ("queued", True)),
                        fields=["project", "version", "vote_count", "id"],
                        name="queue_version_uploaded",
                    ),
                    models.Index(
                        condition=models.Q(("flagged", False), ("queued", True)),
                        fields=["project", "source", "vote_count", "queue_position", "id"],
                        name="queue_source",
                    ),
                    models.Index(
                        condition=models.Q(("flagged", False), ("queued", True)),
                        fields=["project", "topic", "vote_count", "queue_position", "id"],
                        name="queue_topic",
                    ),
                    models.Index(fields=["project", "version", "id"], name="version_in_order"),
                    models.Index(fields=["project", "content_hash"], name="completion_content"),
                    models.Index(
                        condition=models.Q(("gold", True)),
                        fields=["project"],
                        name="completion_gold",
                    ),
                    models.Index(
                        condition=models.Q(("flagged", True)),
                        fields=["project", "id"],
                        name="flagged_in_order",
                    ),
                    models.Index(
                        condition=models.Q(("contested", True), ("decided", "")),
                        fields=["project", "id", "vote_count", "queued"],
                        name="contested_in_order",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Skip",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("flag", models.BooleanField(default=False)),
                ("reason", models.CharField(blank=True, max_length=200)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "completion",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="skips",
                        to="feedback.completion",
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="skips",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(
                        condition=models.Q(("flag", True)),
                        fields=["completion"],
                        name="skip_flagged",
                    )
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("completion", "user"), name="one_skip_per_person"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Vote",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("hasty", models.BooleanField(default=False)),
                ("guidelines_number", models.PositiveIntegerField(default=0)),
                (
                    "verdict",
                    models.CharField(choices=[("up", "Up"), ("down", "Down")], max_length=4),
                ),
                ("reasons", models.JSONField(default=list)),
                ("comment", models.TextField(blank=True)),
                (
                    "source",
                    models.CharField(
                        choices=[
                            ("annotate", "Annotation"),
                            ("demo", "Demo"),
                            ("import", "Import"),
                            ("api", "API"),
                            ("sampled", "Sampled"),
                        ],
                        max_length=10,
                    ),
                ),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("updated_at", models.DateTimeField(auto_now=True)),
                (
                    "completion",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="votes",
                        to="feedback.completion",
                    ),
                ),
                (
                    "project",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="votes",
                        to="feedback.project",
                    ),
                ),
                (
                    "set_aside",
                    models.ForeignKey(
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="votes",
                        to="feedback.pause",
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="votes",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(fields=["project", "user", "-updated_at"], name="vote_recent")
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("completion", "user"), name="one_vote_per_person"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="VoteEvent",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("guidelines_number", models.PositiveIntegerField(default=0)),
                (
                    "verdict",
                    models.CharField(
                        blank=True, choices=[("up", "Up"), ("down", "Down")], max_length=4
                    ),
                ),
                (
                    "source",
                    models.CharField(
                        choices=[
                            ("annotate", "Annotation"),
                            ("demo", "Demo"),
                            ("import", "Import"),
                            ("api", "API"),
                            ("sampled", "Sampled"),
                        ],
                        max_length=10,
                    ),
                ),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "completion",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="vote_events",
                        to="feedback.completion",
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(
                        condition=models.Q(("verdict", "")),
                        fields=["user", "created_at"],
                        name="event_undone",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Webhook",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("url", models.URLField(max_length=500)),
                ("secret", models.CharField(max_length=300)),
                ("events", models.JSONField(default=list)),
                ("active", models.BooleanField(default=True)),
                ("busy_until", models.DateTimeField(null=True)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "created_by",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "project",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="webhooks",
                        to="feedback.project",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="WebhookDelivery",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("event", models.CharField(max_length=20)),
                ("key", models.CharField(max_length=80)),
                ("body", models.TextField()),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("waiting", "Waiting"),
                            ("delivered", "Delivered"),
                            ("failed", "Given up"),
                        ],
                        default="waiting",
                        max_length=9,
                    ),
                ),
                ("attempts", models.PositiveSmallIntegerField(default=0)),
                ("next_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("answer_status", models.PositiveSmallIntegerField(null=True)),
                ("error", models.CharField(blank=True, max_length=300)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("ended_at", models.DateTimeField(null=True)),
                (
                    "webhook",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="deliveries",
                        to="feedback.webhook",
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(
                        condition=models.Q(("status", "waiting")),
                        fields=["next_at"],
                        name="delivery_waiting",
                    ),
                    models.Index(fields=["webhook", "-id"], name="delivery_log"),
                    models.Index(fields=["webhook", "status", "-id"], name="delivery_state"),
                    models.Index(fields=["created_at"], name="delivery_age"),
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("webhook", "key"), name="one_delivery_per_event"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Adjudication",
            fields=[
                (
                    "completion",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="adjudication",
                        serialize=False,
                        to="feedback.completion",
                    ),
                ),
                ("open", models.BooleanField(default=False)),
                ("asked", models.CharField(blank=True, max_length=200)),
                ("asked_at", models.DateTimeField(null=True)),
                (
                    "verdict",
                    models.CharField(
                        blank=True, choices=[("up", "Up"), ("down", "Down")], max_length=4
                    ),
                ),
                ("why", models.CharField(blank=True, max_length=500)),
                ("resolved_at", models.DateTimeField(null=True)),
                (
                    "asked_by",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "by",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "project",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="adjudications",
                        to="feedback.project",
                    ),
                ),
            ],
            options={
                "db_table": "feedback_resolution",
                "indexes": [
                    models.Index(
                        condition=models.Q(("open", True)),
                        fields=["project", "asked_at"],
                        name="asked",
                    ),
                    models.Index(fields=["project", "-resolved_at"], name="resolved"),
                ],
            },
        ),
        migrations.CreateModel(
            name="Example",
            fields=[
                (
                    "completion",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="example",
                        serialize=False,
                        to="feedback.completion",
                    ),
                ),
                ("desirable", models.BooleanField()),
                ("weight", models.FloatField()),
                (
                    "split",
                    models.CharField(
                        choices=[
                            ("train", "Training"),
                            ("validation", "Validation"),
                            ("test", "Test"),
                        ],
                        max_length=10,
                    ),
                ),
                ("used_in_run", models.PositiveIntegerField(null=True)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("updated_at", models.DateTimeField(auto_now=True)),
                (
                    "project",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="examples",
                        to="feedback.project",
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(fields=["project", "split", "desirable"], name="example_counts"),
                    models.Index(
                        fields=["project", "created_at", "completion"], name="example_newest"
                    ),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("weight__gt", 0), ("weight__lte", 1)),
                        name="weight_in_0_1",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="GoldItem",
            fields=[
                (
                    "completion",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="gold_item",
                        serialize=False,
                        to="feedback.completion",
                    ),
                ),
                (
                    "verdict",
                    models.CharField(choices=[("up", "Up"), ("down", "Down")], max_length=4),
                ),
                ("why", models.CharField(blank=True, max_length=500)),
                ("was_queued", models.BooleanField()),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "by",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "project",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="gold_items",
                        to="feedback.project",
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(
                        fields=["project", "-created_at", "-completion"], name="gold_newest"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="GoldAnswer",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("verdict", models.CharField(max_length=4)),
                ("right", models.BooleanField()),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="gold_answers",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "project",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="feedback.project",
                    ),
                ),
                (
                    "item",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="answers",
                        to="feedback.golditem",
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(fields=["project", "user", "-created_at"], name="gold_recent")
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("item", "user"), name="one_gold_answer_per_person"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Correction",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("withdrawn_at", models.DateTimeField(null=True)),
                (
                    "completion",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="correction",
                        to="feedback.completion",
                    ),
                ),
                (
                    "original",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="corrections",
                        to="feedback.completion",
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="corrections",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("withdrawn_at", None)),
                        fields=("original", "user"),
                        name="one_correction_per_person",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="ImportRefusal",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("number", models.PositiveBigIntegerField()),
                ("reason", models.CharField(max_length=300)),
                ("excerpt", models.TextField(blank=True)),
                (
                    "job",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="refusals",
                        to="feedback.importjob",
                    ),
                ),
            ],
            options={
                "indexes": [models.Index(fields=["job", "id"], name="refusal_in_order")],
            },
        ),
        migrations.CreateModel(
            name="Lease",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("taken_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("expires_at", models.DateTimeField()),
                ("front", models.BooleanField(default=False)),
                (
                    "completion",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="leases",
                        to="feedback.completion",
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="leases",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "indexes": [models.Index(fields=["user", "expires_at"], name="lease_of_user")],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("completion", "user"), name="one_lease_per_person"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Probe",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("messages", models.JSONField()),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("contains", "contains"),
                            ("lacks", "does not contain"),
                            ("matches", "matches"),
                            ("not_matches", "does not match"),
                        ],
                        max_length=11,
                    ),
                ),
                ("pattern", models.CharField(max_length=500)),
                ("note", models.CharField(blank=True, max_length=200)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("retired_at", models.DateTimeField(null=True)),
                (
                    "completion",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="probes",
                        to="feedback.completion",
                    ),
                ),
                (
                    "created_by",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "project",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="probes",
                        to="feedback.project",
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(
                        condition=models.Q(("retired_at", None)),
                        fields=["project", "-id"],
                        name="probes_active",
                    ),
                    models.Index(
                        condition=models.Q(("retired_at__isnull", False)),
                        fields=["project", "-retired_at", "-id"],
                        name="probes_retired",
                    ),
                ],
            },
        ),
    ]
