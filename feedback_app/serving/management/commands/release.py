"""`python manage.py release ADAPTER`: like the Release button."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from feedback_app.serving.engine.client import EngineError
from feedback_app.serving.releases.services import release_promote
from feedback_app.training.models import Adapter
from feedback_app.web.errors import UserError


class Command(BaseCommand):
    help = "Makes an adapter live: the engine loads it and answers a canary before the switch."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("adapter", help="<project>@<n>")
        parser.add_argument("--reason", default="")

    def handle(self, *args: Any, **options: Any) -> None:
        name = options["adapter"]
        adapter = Adapter.objects.select_related("project").filter(name=name).first()
        if adapter is None:
            raise CommandError(f"There is no adapter {name}.")
        try:
            release_promote(
                project=adapter.project, adapter=adapter, by=None, reason=options["reason"]
            )
        except (UserError, EngineError) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{name} is live.")
