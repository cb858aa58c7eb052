"""`python manage.py forget_factors ADDRESS`: for a lost phone and lost recovery codes."""

from argparse import ArgumentParser
from typing import Any

from allauth.mfa.models import Authenticator
from django.core.management.base import BaseCommand, CommandError

from feedback_app.accounts.models import User


class Command(BaseCommand):
    help = "Removes a user's second factors, so that the password is enough to sign in."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("address", help="the user's e-mail address")

    def handle(self, *args: Any, **options: Any) -> None:
        user = User.objects.filter(email=options["address"].lower()).first()
        if user is None:
            raise CommandError("There is no user with this address.")
        factors, _ = Authenticator.objects.filter(user=user).delete()
        self.stdout.write(f"{user.email} has no second factor now ({factors} removed).")
