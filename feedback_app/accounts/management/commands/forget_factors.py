"""Lets in again who has lost their telephone and their recovery codes."""

from argparse import ArgumentParser
from typing import Any

from allauth.mfa.models import Authenticator
from django.core.management.base import BaseCommand, CommandError

from feedback_app.accounts.models import User


class Command(BaseCommand):
    help = "Takes the second factors of a person away: their password lets them in."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("address", help="their e-mail address")

    def handle(self, *args: Any, **options: Any) -> None:
        user = User.objects.filter(email=options["address"].lower()).first()
        if user is None:
            raise CommandError("No such person.")
        factors, _ = Authenticator.objects.filter(user=user).delete()
        self.stdout.write(f"{user.email} has no second factor now ({factors} forgotten).")
