"""`python manage.py push_version VERSION DEST`: what the button Push does."""

import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from feedback_app.training.models import Adapter, VersionPush
from feedback_app.training.pushes.destinations import FORMS
from feedback_app.training.pushes.services import push_request
from feedback_app.web.errors import UserError


class Command(BaseCommand):
    help = (
        "Sends the files of a version to a repository of the Hugging Face hub or to S3, below "
        "PUSH_DESTINATIONS; a worker does it."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("version", help="such as support@3")
        parser.add_argument("destination", metavar="DEST", help=FORMS)
        parser.add_argument("--wait", action="store_true", help="wait until the files are there")

    def handle(self, *args: Any, **options: Any) -> None:
        name = options["version"]
        adapter = Adapter.objects.select_related("project").filter(name=name).first()
        if adapter is None:
            raise CommandError(f"There is no version {name}.")
        try:
            push = push_request(adapter=adapter, destination=options["destination"], by=None)
        except UserError as refusal:
            raise CommandError(str(refusal)) from refusal
        self.stdout.write(f"{name} is queued: a worker sends its files to {push.destination}.")
        if options["wait"]:
            self.watch(push)

    def watch(self, push: VersionPush) -> None:
        while push.active:
            time.sleep(1)
            push.refresh_from_db()
        if push.status == VersionPush.Status.FAILED:
            raise CommandError(push.error)
        self.stdout.write(f"The files are at {push.url}.")
