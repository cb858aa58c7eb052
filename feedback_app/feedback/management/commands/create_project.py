"""`python manage.py create_project SLUG`: an empty project with defaults."""

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from feedback_app.accounts.models import User
from feedback_app.feedback.projects.services import project_create


class Command(BaseCommand):
    help = "Creates an empty project; its owner can then import prompts and invite people."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("slug")
        parser.add_argument("--name", help="display name (default: from the slug)")
        parser.add_argument("--base-model", default=settings.BASE_MODEL)
        parser.add_argument("--owner", help="e-mail of an account (default: the first owner's)")

    def handle(self, *args: Any, **options: Any) -> None:
        people = User.objects.filter(is_active=True).order_by("pk")
        address = (options["owner"] or "").lower()
        owner = people.filter(email=address).first() if address else None
        if address and owner is None:
            raise CommandError(f"No account has the address {address}.")
        owner = owner or people.filter(memberships__role="owner").first() or people.first()
        if owner is None:
            raise CommandError("There is no account yet. Run `python manage.py createsuperuser`.")
        slug = options["slug"]
        try:
            project = project_create(
                slug=slug,
                name=options["name"] or slug.replace("-", " ").capitalize(),
                base_model=options["base_model"],
                owner=owner,
            )
        except ValidationError as error:
            raise CommandError("; ".join(error.messages)) from error
        self.stdout.write(f"{project.name} is at /projects/{project.slug}/ and owned by {owner}.")
