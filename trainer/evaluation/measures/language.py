"""The language of an answer."""

import regex

#: Letters from which on a guess is reported; a character of a script without spaces counts as
#: three. Shorter texts are too often taken for a related language.
_LEAST_LETTERS = 30

_LETTER = regex.compile(r"\p{L}")
_DENSE = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}]")


def language(text: str) -> str:
    """Return the ISO 639-1 code of the text's language, "" where the text is too short to tell."""
    if len(_LETTER.findall(text)) + 2 * len(_DENSE.findall(text)) < _LEAST_LETTERS:
        return ""
    from py3langid import classify  # reads its model, which takes a second

    code, _ = classify(text)
    return str(code)
