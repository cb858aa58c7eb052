"""Counts in sentences."""

from feedback_app.web.text.plurals import number_of


def test_count_has_the_form_of_its_noun() -> None:
    assert [number_of(count, "example") for count in (0, 1, 1200)] == [
        "0 examples",
        "1 example",
        "1,200 examples",
    ]
    assert number_of(1, "person", "people") == "1 person"
    assert number_of(2, "person", "people") == "2 people"
