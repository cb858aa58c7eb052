"""docs/glossary.md covers the models and URLs, and its banned synonyms are not used."""

import re
from pathlib import Path

from django.apps import apps
from django.conf import settings
from django.urls import URLPattern, URLResolver, get_resolver

ROOT = Path(settings.BASE_DIR)
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text()
#: Words of each term, and its banned synonyms.
ROWS = [
    (set(re.findall(r"\w+", term.lower())), {word.strip().lower() for word in banned.split(",")})
    for term, banned in re.findall(r"^\| \*\*(.+?)\*\* \|.*\| ?(.*?) \|$", GLOSSARY, re.MULTILINE)
]
TERMS = set().union(*(words for words, _ in ROWS))
BANNED = set().union(*(words for _, words in ROWS)) - TERMS - {""}
#: Banned as a name for a term, but common on pages in their own meaning.
OTHER_MEANING = {
    "input",
    "job",
    "key",
    "lock",
    "model",
    "output",
    "row",
    "sample",
    "score",
    "side",
    "tag",
    "task",
}


def model_names() -> list[str]:
    return [m.__name__ for m in apps.get_models() if "feedback_app" in m.__module__]


def test_every_model_is_in_the_glossary() -> None:
    assert len(model_names()) > 30
    missing = [
        name
        for name in model_names()
        if not any(
            {word.lower() for word in re.findall("[A-Z][a-z]+", name)} <= words for words, _ in ROWS
        )
    ]
    assert missing == []


def addresses(resolver: URLResolver) -> list[str]:
    found = []
    for entry in resolver.url_patterns:
        if isinstance(entry, URLResolver):
            if "allauth" not in str(entry.urlconf_name) and entry.app_name is None:
                found += addresses(entry)
        # allauth has chosen the addresses of its own pages
        elif isinstance(entry, URLPattern) and not entry.callback.__module__.startswith("allauth."):
            found.append(str(entry.pattern))
    return found


def test_every_word_of_an_address_is_in_the_glossary() -> None:
    text = set(re.findall(r"\w+", GLOSSARY.lower()))
    words = {
        word
        for address in addresses(get_resolver())
        for word in re.findall(r"[a-z]\w*", re.sub(r"<[^>]*>", "", address))
    }
    assert len(words) > 40
    singular = {word: {word, re.sub("s$", "", word), re.sub("ies$", "y", word)} for word in words}
    assert sorted(word for word in words if not singular[word] & text) == []


def test_no_model_module_or_page_uses_a_banned_synonym() -> None:
    assert len(BANNED) > 50
    assert {name.lower() for name in model_names()} & BANNED == set()
    modules = {
        path.stem
        for part in ("feedback_app", "trainer", "artifact_store")
        for path in (ROOT / part).rglob("*")
        if path.suffix in ("", ".py") and "migrations" not in path.parts
    }
    assert modules & BANNED == set()
    used: dict[str, list[str]] = {}
    for path in (ROOT / "templates").rglob("*.html"):
        markup = re.sub(
            r"{%.*?%}|{{.*?}}|{#.*?#}|<script.*?</script>", " ", path.read_text(), flags=re.S
        )
        visible = re.sub(r"<[^>]*>", " ", markup).lower()
        for word in BANNED - OTHER_MEANING:
            if re.search(rf"\b{re.escape(word)}s?\b", visible):
                used.setdefault(word, []).append(path.name)
    assert used == {}
