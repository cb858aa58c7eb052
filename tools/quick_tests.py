"""Choose the test files of `make quick`: `.venv/bin/python tools/quick_tests.py junit.xml`.

Reads the times of a run (pytest's --junitxml) and writes tests/quick.txt: the files whose tests
take least on average, until together they take SECONDS. pytest collects only the files in that
list, since importing all of them takes longer than their tests.
"""

import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "tests" / "quick.txt"
#: Of all chosen tests one after the other.
SECONDS = 50.0


def file_of(classname: str, root: Path = ROOT) -> str:
    """Return the file of a junit class name such as `tests.web.test_ids`."""
    parts = classname.split(".")
    while parts and not (root / "/".join(parts)).with_suffix(".py").is_file():
        parts.pop()
    return "/".join(parts) + ".py" if parts else ""


def chosen(times: Iterable[tuple[str, float]], seconds: float = SECONDS) -> list[str]:
    """Return the files with the fastest tests, by name, from (file, seconds) of each test."""
    by_file: dict[str, list[float]] = defaultdict(list)
    for file, each in times:
        by_file[file].append(each)
    files, total = [], 0.0
    for file in sorted(by_file, key=lambda file: sum(by_file[file]) / len(by_file[file])):
        total += sum(by_file[file])
        if total > seconds:
            break
        files.append(file)
    return sorted(files)


def main() -> None:
    cases = ElementTree.parse(sys.argv[1]).iter("testcase")  # noqa: S314 - made by our own pytest
    times = ((file_of(case.get("classname", "")), float(case.get("time", 0))) for case in cases)
    files = chosen((file, seconds) for file, seconds in times if file)
    TARGET.write_text("".join(f"{file}\n" for file in files))
    sys.stdout.write(f"{TARGET.relative_to(ROOT)}: {len(files)} files\n")


if __name__ == "__main__":
    main()
