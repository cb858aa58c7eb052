"""Errors that a person can do something about."""


class BadRequest(Exception):
    """What was asked cannot be done; the message says why and what to do instead."""
