"""Rows of Example are written by feedback/examples only."""

import ast
from pathlib import Path

import pytest
from django.conf import settings

pytestmark = pytest.mark.slow

ROOT = Path(settings.BASE_DIR)
APP = ROOT / "feedback_app"
#: Managers of Example rows: `Example.objects` and the related manager `project.examples`.
MANAGERS = {"Example.objects", "Example._default_manager"}
RELATED = "examples"
WRITES = {
    *("create", "bulk_create", "get_or_create", "update_or_create"),
    *("update", "bulk_update", "delete", "_raw_delete"),
}


def modules() -> list[Path]:
    """Return every module that must not write examples."""
    outside = {"migrations", "models"}
    return [
        path
        for path in APP.rglob("*.py")
        if not outside & set(path.parts) and path.parent != APP / "feedback" / "examples"
    ]


def reads_examples(node: ast.expr, names: set[str]) -> bool:
    """Return whether the expression is a queryset of examples or one derived from it."""
    while True:
        if ast.unparse(node) in MANAGERS | names:
            return True
        if isinstance(node, ast.Call):
            node = node.func
        elif isinstance(node, ast.Attribute):
            # project.examples: the related manager; pause.examples is a list of a JSON column
            if node.attr == RELATED and ast.unparse(node.value) != "pause":
                return True
            node = node.value
        else:
            return False


def example_writes(code: str) -> list[str]:
    """Return the calls that write Example rows, or build one, as source text."""
    tree = ast.parse(code)
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and reads_examples(node.value, names):
            names |= {ast.unparse(target) for target in node.targets}
    return [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and (
            ast.unparse(node.func) == "Example"
            or (
                isinstance(node.func, ast.Attribute)
                and (
                    (node.func.attr in WRITES and reads_examples(node.func.value, names))
                    # completion.example.delete(), example.save()
                    or (
                        node.func.attr in {"delete", "save"}
                        and ast.unparse(node.func.value).split(".")[-1] == "example"
                    )
                )
            )
        )
    ]


def test_examples_are_written_by_one_package() -> None:
    found = {
        str(path.relative_to(ROOT)): writes
        for path in modules()
        if (writes := example_writes(path.read_text()))
    }
    assert len(modules()) > 100
    assert found == {}


def test_writer_itself_is_recognised() -> None:
    services = APP / "feedback" / "examples" / "services.py"
    assert len(example_writes(services.read_text())) >= 5


@pytest.mark.parametrize(
    "code",
    [
        "Example.objects.create(completion=c)",
        "Example.objects.bulk_create([e])",
        "Example.objects.filter(pk=1).update(weight=1)",
        "Example.objects.filter(pk=1).exclude(pk=2).delete()",
        "project.examples.filter(split='train').update(weight=1)",
        "rows = Example.objects.filter(pk=1)\nrows.filter(weight=1).delete()",
        "Example(completion=c)",
        "completion.example.delete()",
    ],
)
def test_every_kind_of_write_is_recognised(code: str) -> None:
    assert example_writes(code) != []


@pytest.mark.parametrize(
    "code",
    ["Example.objects.filter(pk=1).count()", "state.update(weight=1)", "project.examples.all()"],
)
def test_reads_are_not_taken_as_writes(code: str) -> None:
    assert example_writes(code) == []
