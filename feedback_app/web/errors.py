"""Errors that a person can do something about."""


class UserError(Exception):
    """What was asked cannot be done; the message says why and what to do instead."""

    status = 422


class RateLimited(UserError):
    """Nothing is wrong with what was asked but its pace: the same is welcome later."""

    status = 429
