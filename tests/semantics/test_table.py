"""docs/testing.md names a test for each behaviour: they all exist."""
import re

from conftest import ROOT


def test_the_table_of_behaviours_names_tests():
    page = (ROOT / "docs/testing.md").read_text()
    names = set(re.findall(r"`\*(\w+)`", page))
    found = {name for path in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"^def test_(\w+)\(", path.read_text(), re.M)}
    assert len(names) > 100 and names <= found, names - found
