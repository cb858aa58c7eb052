"""The files of `make quick`: those with the fastest tests, and none that is gone."""

from pathlib import Path

from tools.quick_tests import ROOT, TARGET, chosen, file_of


def test_listed_files_exist() -> None:
    listed = TARGET.read_text().splitlines()
    assert len(listed) > 20
    assert [file for file in listed if not (ROOT / file).is_file()] == []


def test_files_with_the_fastest_tests_are_chosen_until_the_time_is_used_up() -> None:
    times = [("slow.py", 3.0), ("many.py", 0.5), ("many.py", 0.5), ("fast.py", 0.1)]
    assert chosen(times, seconds=2.0) == ["fast.py", "many.py"]
    assert chosen(times, seconds=1.0) == ["fast.py"]
    assert chosen(times, seconds=9.0) == ["fast.py", "many.py", "slow.py"]


def test_file_is_found_for_functions_and_classes(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "test_a.py").touch()
    assert file_of("parts.test_a", tmp_path) == "parts/test_a.py"
    assert file_of("parts.test_a.TestOne", tmp_path) == "parts/test_a.py"
    assert file_of("elsewhere.test_b", tmp_path) == ""
