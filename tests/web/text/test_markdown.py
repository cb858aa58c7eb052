"""Text from models and imports is displayed and never executed (faults: hostile or huge items)."""

import time
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback_app.feedback.templatetags.model_text import model_text
from feedback_app.web.text.highlight import LANGUAGES, LIMIT
from feedback_app.web.text.markdown import MARKDOWN_LIMIT, PLAIN_LIMIT, TAGS, render


class Page(HTMLParser):
    """Collects every tag and attribute that a browser would see."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs


class Text(HTMLParser):
    """Collects the text that a browser would show."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text = ""
        self.feed(html)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize(
    "hostile",
    [
        "<script>alert(1)</script>",
        '<img src=x onerror="alert(1)">',
        '<svg onload="alert(1)"><a href="#">x</a></svg>',
        '<div hx-get="/logout/" hx-trigger="load" style="position:fixed">x</div>',
        '<iframe srcdoc="<script>1</script>"></iframe>',
        "[click](javascript:alert(1))",
        "[click](JaVaScRiPt&colon;alert(1))",
        "[click](data:text/html;base64,PHNjcmlwdD4=)",
        "![pixel](https://tracker.example/?q=secret)",
        '[x](https://a.example "t\\" onmouseover=alert(1) hx-get=/x")',
        "```mermaid\ngraph TD; A[<script>alert(1)</script>]\n```",
        "$$\\href{javascript:alert(1)}{x} \\unclosed{",
        '<https://a.example/"onclick=alert(1)>',
    ],
)
def test_render_hostile_text_has_no_active_content(hostile: str) -> None:
    page = Page(render(hostile))

    assert set(page.tags) <= TAGS
    assert {name for name, _ in page.attributes} <= {"href", "title", "rel", "start", "dir"}
    links = [value or "" for name, value in page.attributes if name == "href"]
    assert all(link.startswith(("http://", "https://", "mailto:")) for link in links)


def test_list_has_its_bullets_on_the_side_where_its_text_begins() -> None:
    hebrew = render("- \u05d0\n- \u05d1\n\n1. \u05d2\n\n> \u05d3")

    for tag in ("ul", "ol", "blockquote"):
        assert f'<{tag} dir="auto">' in hebrew
    assert 'start="3"' in render("3. three")


@given(st.text(alphabet="<>[]()!*_`|&;:/\\\"'= \njavscriptonhxge-", max_size=400))
def test_render_any_text_stays_inside_the_allow_list(text: str) -> None:
    page = Page(render(text))

    assert set(page.tags) <= TAGS
    assert {name for name, _ in page.attributes} <= {"href", "title", "rel", "start", "dir"}


CODE = "```python\n# note\ndef f(x: int = 3) -> str:\n    return '<b>'\n```"


def test_code_gets_classes_and_stays_the_same_text() -> None:
    html = render(CODE)
    for part in (
        '<span class="code-comment"># note</span>',
        '<span class="code-keyword">def</span>',
        '<span class="code-name">f</span>',
        '<span class="code-number">3</span>',
        "&lt;b&gt;",
    ):
        assert part in html
    text = Text(html).text
    assert text.strip() == CODE.removeprefix("```python\n").removesuffix("\n```")


@pytest.mark.parametrize(
    "language", ["", "unknown", "../../etc", "text onmouseover=x", "brainfuck"]
)
def test_code_of_other_languages_has_no_colours(language: str) -> None:
    html = render(f"```{language}\n<script>1</script>\n```")
    assert "<span" not in html
    assert "<script" not in html


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_hostile_code_takes_bounded_time_and_stays_text(language: str) -> None:
    hostile = '<script>\'"""/*{{<!--[[((\\\\$`' * (LIMIT // 40)
    before = time.thread_time()
    html = render(f"~~~{language}\n{hostile[:LIMIT]}\n~~~")
    assert time.thread_time() - before < 20
    page = Page(html)
    assert set(page.tags) <= {"pre", "code", "span"}
    assert {name for name, _ in page.attributes} <= {"class"}


def test_long_code_has_no_colours() -> None:
    assert "<span" not in render("```python\n" + "x = 1\n" * (LIMIT // 4) + "```")


def test_classes_of_the_text_itself_are_not_kept() -> None:
    assert "<span" not in render('<span class="code-keyword">x</span>')


def test_render_raw_html_is_shown_as_text() -> None:
    assert "&lt;b&gt;bold&lt;/b&gt;" in render("<b>bold</b>")


def test_render_markdown_keeps_lists_code_tables_and_links() -> None:
    html = render("1. **a**\n2. `b`\n\n|x|y|\n|-|-|\n|1|2|\n\n[docs](https://a.example/)")

    for part in ('<ol dir="auto">', "<strong>a</strong>", "<code>b</code>", "<td>2</td>"):
        assert part in html
    assert 'href="https://a.example/" rel="nofollow noopener noreferrer"' in html


@pytest.mark.parametrize(
    "monster",
    [
        pytest.param("a" * 1_000_000, id="1 MB without a space"),
        pytest.param("<" * 1_000_000, id="1 MB to escape"),
        pytest.param("[" * MARKDOWN_LIMIT, id="brackets"),
        pytest.param("[a](" * (MARKDOWN_LIMIT // 4), id="half links"),
        pytest.param(">" * MARKDOWN_LIMIT, id="quotes"),
        pytest.param("*a **b " * (MARKDOWN_LIMIT // 7), id="emphasis"),
        pytest.param("`a``b```" * (MARKDOWN_LIMIT // 8), id="backticks"),
        pytest.param("".join(" " * n + "- a\n" for n in range(190)), id="nested lists"),
        pytest.param("|a" * 4000 + "\n" + "|-" * 4000 + "\n" + "|x\n" * 1200, id="wide table"),
        pytest.param("$" * MARKDOWN_LIMIT + "\\frac{" * 10, id="LaTeX"),
    ],
)
def test_render_huge_text_takes_bounded_time_and_space(monster: str) -> None:
    before = time.thread_time()
    html = render(monster)

    # CPU seconds of this thread: about 0.1 in each case; quadratic time would take minutes
    assert time.thread_time() - before < 20
    assert len(html) < 6 * PLAIN_LIMIT


def test_render_too_long_text_shows_how_much_is_omitted() -> None:
    assert "… 800000 more characters are not shown." in render("a" * 1_000_000)


def test_model_text_filter_disables_htmx() -> None:
    assert model_text("*hi*") == '<div class="prose" hx-disable><p><em>hi</em></p>\n</div>'
