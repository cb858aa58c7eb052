"""Errors that the user can act on."""


class UserError(Exception):
    """The request cannot be fulfilled; the message says why and what to do instead."""

    status = 422


class NotFound(UserError):
    """The object does not exist, or is not shown to this person."""

    status = 404


class Conflict(UserError):
    """The request was made for another state than the present one."""

    status = 409


class RateLimited(UserError):
    """The request exceeds a rate limit and may be repeated later."""

    status = 429
