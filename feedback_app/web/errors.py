"""Errors that the user can act on."""


class UserError(Exception):
    """The request cannot be fulfilled; the message says why and what to do instead."""

    status = 422


class RateLimited(UserError):
    """The request exceeds a rate limit and may be repeated later."""

    status = 429
