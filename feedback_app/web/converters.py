"""Path converters."""

#: The largest value of a BigAutoField.
LARGEST_ID = 2**63 - 1


class IdConverter:
    """An id that a database column can hold; larger numbers match no address.

    SQLite and PostgreSQL raise an error for a larger parameter.
    """

    regex = "[0-9]{1,19}"

    def to_python(self, value: str) -> int:
        number = int(value)
        if number > LARGEST_ID:
            raise ValueError("The number is too large.")
        return number

    def to_url(self, value: int) -> str:
        return str(value)
