"""All tables of this app, as a fresh installation makes them in one step.

Applying the migrations named below one by one took most of the first start. Databases that have
begun them go on with them.
"""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    replaces = [
        ("training", "0001_initial"),
        ("training", "0002_snapshot_left_out"),
        ("training", "0003_erasures"),
        ("training", "0004_erasure_claims"),
        ("training", "0005_run_request_id"),
        ("training", "0006_run_fit"),
        ("training", "0007_three_splits"),
        ("training", "0008_divide_held_out_items"),
        ("training", "0009_remove_held_out_counts"),
        ("training", "0010_gate_rules"),
        ("training", "0011_judge"),
        ("training", "0012_blind_pairs"),
        ("training", "0013_run_resumable"),
        ("training", "0014_exact_forgetting"),
    ]

    initial = True

    dependencies = [
        ("accounts", "__first__"),
        ("feedback", "0032_prompt_retired"),
    ]

    operations = [
        migrations.CreateModel(
            name="Adapter",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=80, unique=True)),
                ("path", models.CharField(max_length=300)),
                ("sha256", models.CharField(max_length=64)),
                ("report", models.JSONField(default=dict)),
                ("gate", models.JSONField(default=dict)),
                (
                    "gate_outcome",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("passed", "Passed"),
                            ("failed", "Failed"),
                            ("undecided", "Not enough evidence"),
                        ],
                        max_length=9,
                    ),
                ),
                ("gate_won", models.BooleanField(default=False)),
                ("discarded_at", models.DateTimeField(null=True)),
                ("locked_at", models.DateTimeField(null=True)),
                ("deleted_at", models.DateTimeField(null=True)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "project",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="adapters",
                        to="feedback.project",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Judge",
            fields=[
                (
                    "project",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="judge",
                        serialize=False,
                        to="feedback.project",
                    ),
                ),
                ("url", models.CharField(max_length=500)),
                ("model", models.CharField(max_length=200)),
                ("api_key", models.TextField(blank=True)),
                ("updated_at", models.DateTimeField(auto_now=True)),
                (
                    "saved_by",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="PairBatch",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("same", models.PositiveIntegerField(default=0)),
                (
                    "end",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("decided", "Decided"),
                            ("judged", "All pairs judged"),
                            ("closed", "Closed by an admin"),
                        ],
                        max_length=7,
                    ),
                ),
                ("ended_at", models.DateTimeField(null=True)),
                ("counts", models.JSONField(default=dict)),
                ("decided_at", models.DateTimeField(null=True)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "adapter",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="pair_batch",
                        to="training.adapter",
                    ),
                ),
                (
                    "project",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="pair_batches",
                        to="feedback.project",
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(
                        condition=models.Q(("end", "")), fields=["project"], name="pair_batch_open"
                    ),
                    models.Index(
                        condition=models.Q(("decided_at", None)),
                        fields=["ended_at"],
                        name="pair_batch_due",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="BlindPair",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("position", models.PositiveIntegerField()),
                ("messages", models.JSONField()),
                ("candidate_text", models.TextField(blank=True)),
                ("live_text", models.TextField(blank=True)),
                (
                    "prompt",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="feedback.prompt",
                    ),
                ),
                (
                    "batch",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="pairs",
                        to="training.pairbatch",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("batch", "position"), name="blind_pair_position"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="PairVote",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "choice",
                    models.CharField(
                        choices=[
                            ("candidate", "The candidate"),
                            ("live", "Live"),
                            ("tie", "No difference"),
                            ("skip", "Skipped"),
                        ],
                        max_length=9,
                    ),
                ),
                (
                    "side",
                    models.CharField(
                        choices=[
                            ("left", "A is better"),
                            ("right", "B is better"),
                            ("tie", "No difference"),
                            ("skip", "Skipped"),
                        ],
                        max_length=5,
                    ),
                ),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("updated_at", models.DateTimeField(auto_now=True)),
                (
                    "pair",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="votes",
                        to="training.blindpair",
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="pair_votes",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "indexes": [models.Index(fields=["user", "-updated_at"], name="pair_vote_recent")],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("pair", "user"), name="one_pair_vote_per_person"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Run",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("attempt", models.PositiveSmallIntegerField(default=0)),
                ("heartbeat_at", models.DateTimeField(null=True)),
                ("number", models.PositiveIntegerField()),
                ("config", models.JSONField(default=dict)),
                (
                    "trigger",
                    models.CharField(
                        choices=[
                            ("person", "By hand"),
                            ("schedule", "By schedule"),
                            ("erasure", "After an erasure"),
                        ],
                        max_length=8,
                    ),
                ),
                ("auto_release", models.BooleanField(default=False)),
                ("request_id", models.CharField(blank=True, max_length=64)),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("queued", "Waiting"),
                            ("running", "Training"),
                            ("evaluating", "Comparing"),
                            ("succeeded", "Done"),
                            ("failed", "Failed"),
                            ("cancelled", "Cancelled"),
                        ],
                        default="queued",
                        max_length=10,
                    ),
                ),
                ("cancel_requested", models.BooleanField(default=False)),
                ("dispatched_at", models.DateTimeField(null=True)),
                ("events_offset", models.PositiveBigIntegerField(default=0)),
                ("phase", models.CharField(blank=True, max_length=20)),
                ("progress_done", models.PositiveIntegerField(default=0)),
                ("progress_total", models.PositiveIntegerField(default=0)),
                ("eta_seconds", models.FloatField(null=True)),
                ("facts", models.JSONField(default=dict)),
                ("fit", models.JSONField(null=True)),
                ("error", models.TextField(blank=True)),
                ("resumable", models.BooleanField(db_default=True, default=True)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("started_at", models.DateTimeField(null=True)),
                ("finished_at", models.DateTimeField(null=True)),
                (
                    "project",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="runs",
                        to="feedback.project",
                    ),
                ),
                (
                    "requested_by",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "retrains",
                    models.ForeignKey(
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="retrainings",
                        to="training.run",
                    ),
                ),
            ],
        ),
        migrations.AddField(
            model_name="adapter",
            name="run",
            field=models.OneToOneField(
                on_delete=django.db.models.deletion.PROTECT,
                related_name="adapter",
                to="training.run",
            ),
        ),
        migrations.CreateModel(
            name="RunMetric",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("step", models.PositiveIntegerField()),
                ("loss", models.FloatField()),
                ("kl", models.FloatField()),
                ("kl_unclamped", models.FloatField()),
                ("reward_desirable", models.FloatField(null=True)),
                ("reward_undesirable", models.FloatField(null=True)),
                ("completion_tokens", models.FloatField(null=True)),
                ("learning_rate", models.FloatField()),
                ("grad_norm", models.FloatField()),
                ("seconds", models.FloatField()),
                (
                    "run",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="metrics",
                        to="training.run",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("run", "step"), name="one_metric_per_step")
                ],
            },
        ),
        migrations.CreateModel(
            name="RunNote",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "level",
                    models.CharField(
                        choices=[("info", "Info"), ("warning", "Warning"), ("error", "Error")],
                        default="info",
                        max_length=7,
                    ),
                ),
                ("text", models.TextField()),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "run",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="notes",
                        to="training.run",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Schedule",
            fields=[
                (
                    "project",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="schedule",
                        serialize=False,
                        to="feedback.project",
                    ),
                ),
                ("enabled", models.BooleanField(default=False)),
                ("min_new_examples", models.PositiveIntegerField(default=50)),
                ("min_hours", models.FloatField(default=24)),
                ("auto_release", models.BooleanField(default=False)),
                ("updated_at", models.DateTimeField(auto_now=True)),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("min_new_examples__gte", 1)), name="schedule_examples"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("min_hours__gte", 0)), name="schedule_hours"
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Snapshot",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("train_up", models.PositiveIntegerField()),
                ("train_down", models.PositiveIntegerField()),
                ("validation_up", models.PositiveIntegerField(db_default=0, default=0)),
                ("validation_down", models.PositiveIntegerField(db_default=0, default=0)),
                ("test_up", models.PositiveIntegerField(db_default=0, default=0)),
                ("test_down", models.PositiveIntegerField(db_default=0, default=0)),
                ("left_out", models.PositiveIntegerField(default=0)),
                ("left_out_people", models.PositiveIntegerField(default=0)),
                ("sha256", models.CharField(blank=True, max_length=64)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "project",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="snapshots",
                        to="feedback.project",
                    ),
                ),
            ],
        ),
        migrations.AddField(
            model_name="run",
            name="snapshot",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT,
                related_name="runs",
                to="training.snapshot",
            ),
        ),
        migrations.CreateModel(
            name="SnapshotItem",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
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
                ("reward", models.FloatField(null=True)),
                ("reference_point", models.FloatField(null=True)),
                (
                    "completion",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="snapshot_items",
                        to="feedback.completion",
                    ),
                ),
                (
                    "snapshot",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="items",
                        to="training.snapshot",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("snapshot", "completion"), name="once_per_snapshot"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Erasure",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("attempt", models.PositiveSmallIntegerField(default=0)),
                ("heartbeat_at", models.DateTimeField(null=True)),
                ("person", models.PositiveBigIntegerField(null=True)),
                ("completion", models.PositiveBigIntegerField(null=True)),
                ("account", models.BooleanField()),
                ("votes", models.PositiveIntegerField(default=0)),
                ("examples_gone", models.PositiveIntegerField(default=0)),
                ("examples_changed", models.PositiveIntegerField(default=0)),
                ("runs", models.JSONField(default=list)),
                ("due_at", models.DateTimeField(null=True)),
                ("deleted_at", models.DateTimeField(null=True)),
                ("problem", models.TextField(blank=True, db_default="", default="")),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("finished_at", models.DateTimeField(null=True)),
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
                        related_name="erasures",
                        to="feedback.project",
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(fields=["project", "-created_at"], name="erasure_list"),
                    models.Index(
                        condition=models.Q(("deleted_at", None), ("due_at__isnull", False)),
                        fields=["project"],
                        name="erasure_pending",
                    ),
                    models.Index(
                        condition=models.Q(("finished_at", None)),
                        fields=["person"],
                        name="erasure_unfinished",
                    ),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("completion__isnull", False), ("person", None)),
                            models.Q(("completion", None), ("person__isnull", False)),
                            _connector="OR",
                        ),
                        name="erasure_of_one",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="GateRules",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("number", models.PositiveIntegerField()),
                ("rules", models.JSONField()),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "project",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="gate_rules",
                        to="feedback.project",
                    ),
                ),
                (
                    "saved_by",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("project", "number"), name="gate_rules_number")
                ],
            },
        ),
        migrations.AddIndex(
            model_name="run",
            index=models.Index(fields=["status", "heartbeat_at"], name="run_dispatch"),
        ),
        migrations.AddIndex(
            model_name="run",
            index=models.Index(
                condition=models.Q(("retrains__isnull", False)),
                fields=["retrains"],
                name="run_retrains",
            ),
        ),
        migrations.AddConstraint(
            model_name="run",
            constraint=models.UniqueConstraint(fields=("project", "number"), name="run_number"),
        ),
        migrations.AddConstraint(
            model_name="run",
            constraint=models.UniqueConstraint(
                condition=models.Q(("status__in", ["queued", "running", "evaluating"])),
                fields=("project",),
                name="one_active_run_per_project",
            ),
        ),
    ]
