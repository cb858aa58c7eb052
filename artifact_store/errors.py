"""What can go wrong between a host and the artifact store."""


class StoreError(OSError):
    """The store could not be used; files on this host are as before."""


class StoreUnreachable(StoreError):
    """The store does not answer or refuses access: the same call may succeed later."""


class StoreDamaged(StoreError):
    """What is stored differs from its hashes: a repetition finds the same."""
