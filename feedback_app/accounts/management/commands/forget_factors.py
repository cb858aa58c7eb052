"""`python manage.py forget_factors ADDRESS`: for a lost phone and lost recovery codes.

`--unreadable` instead of an address: for all whose factors were encrypted with a lost SECRET_KEY.
"""

from argparse import ArgumentParser
from typing import Any

from allauth.mfa.models import Authenticator
from django.core.management.base import BaseCommand, CommandError

from feedback_app.accounts.models import User
from feedback_app.accounts.second_factor import factors_unreadable


class Command(BaseCommand):
    help = "Removes second factors, so that the password is enough to sign in."

    def add_arguments(self, parser: ArgumentParser) -> None:
        whose = parser.add_mutually_exclusive_group(required=True)
        whose.add_argument("address", nargs="?", help="the user's e-mail address")
        whose.add_argument(
            "--unreadable",
            action="store_true",
            help="of everyone whose second factor no known SECRET_KEY decrypts",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["unreadable"]:
            self.forget_unreadable()
            return
        user = User.objects.filter(email=options["address"].lower()).first()
        if user is None:
            raise CommandError("There is no user with this address.")
        factors, _ = Authenticator.objects.filter(user=user).delete()
        self.stdout.write(f"{user.email} has no second factor now ({factors} removed).")

    def forget_unreadable(self) -> None:
        found = factors_unreadable()
        addresses = sorted(set(found.values_list("user__email", flat=True)))
        found.delete()
        for address in addresses:
            self.stdout.write(f"{address}: removed what could not be decrypted.")
        self.stdout.write(f"{len(addresses)} people had unreadable second factors.")
