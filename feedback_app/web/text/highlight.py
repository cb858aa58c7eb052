"""Colours of code in model output: spans with classes of ours, made by Pygments.

Lexers are regular expressions over hostile text: only those of common languages are used, and only
on code of bounded length.
"""

from functools import cache

from django.utils.html import escape
from pygments.lexer import Lexer
from pygments.lexers import get_lexer_by_name
from pygments.token import Comment, Generic, Keyword, Name, Number, String, _TokenType
from pygments.util import ClassNotFound

#: Characters of a code block that gets colours.
LIMIT = 10_000
LANGUAGES = frozenset(
    "bash c console cpp csharp css diff dockerfile go html ini java javascript js json jsx kotlin "
    "lua make markdown nginx perl php powershell py python r ruby rust scala sh shell sql swift "
    "toml ts tsx typescript xml yaml yml".split()
)
#: The class of a token: that of the first type that it, or a type above it, is in.
CLASSES: dict[_TokenType, str] = {
    Comment: "code-comment",
    Keyword: "code-keyword",
    Name.Tag: "code-keyword",
    Name.Function: "code-name",
    Name.Class: "code-name",
    Name.Decorator: "code-name",
    Name.Attribute: "code-name",
    Name.Builtin: "code-name",
    String: "code-string",
    Number: "code-number",
    Generic.Deleted: "code-deleted",
    Generic.Inserted: "code-inserted",
}


@cache
def lexer_of(language: str) -> Lexer | None:
    """Return the lexer of a language that gets colours."""
    if language not in LANGUAGES:
        return None
    try:
        return get_lexer_by_name(language, stripnl=False, ensurenl=False)
    except ClassNotFound:
        return None


def highlighted(code: str, language: str, _attributes: str = "") -> str:
    """Return code as HTML with spans, or nothing where it gets no colours."""
    lexer = lexer_of(language.lower()) if len(code) <= LIMIT else None
    if lexer is None:
        return ""
    parts = []
    for kind, text in lexer.get_tokens(code):
        name = class_of(kind)
        parts.append(f'<span class="{name}">{escape(text)}</span>' if name else escape(text))
    return "".join(parts)


@cache
def class_of(kind: _TokenType) -> str:
    """Return the class of a type of tokens; empty for most."""
    at: _TokenType | None = kind
    while at is not None:
        if at in CLASSES:
            return CLASSES[at]
        at = at.parent
    return ""
