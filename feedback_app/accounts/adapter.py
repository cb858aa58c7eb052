"""How django-allauth behaves here."""

from allauth.account.adapter import DefaultAccountAdapter
from django.http import HttpRequest


class ClosedSignup(DefaultAccountAdapter):
    """Nobody signs up by themselves: people are invited to projects."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return False
