"""The rules that hold the tree together: the customer's top level, the name `platform`, and READMEs that do not rot."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE_ROOTS = ("platform", "evaluations", "dashboards")
TOP_LEVEL = {"platform", "evaluations", "dashboards", "tests", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md",
             "Makefile", "constraints.txt"}  # fmt: skip


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return listed.stdout.splitlines()


def test_the_top_level_is_the_customers() -> None:
    top = {path.split("/")[0] for path in tracked()}
    assert {name for name in top if not name.startswith(".")} == TOP_LEVEL


@pytest.mark.parametrize("root", SOURCE_ROOTS)
def test_a_source_root_is_no_package(root: str) -> None:
    """A `.py` file directly in a source root would shadow the standard library's modules (platform, queue)."""
    assert [path.name for path in (ROOT / root).glob("*.py")] == []


def test_there_is_no_package_under_tests() -> None:
    assert [path for path in tracked() if path.startswith("tests/") and path.endswith("__init__.py")] == []


def test_the_standard_librarys_platform_is_not_shadowed() -> None:
    code = "import platform; print(platform.python_version())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("3.")


@pytest.mark.parametrize("folder", [*SOURCE_ROOTS, "tests"])
def test_each_folder_has_a_readme(folder: str) -> None:
    assert len((ROOT / folder / "README.md").read_text()) > 500


@pytest.mark.parametrize("root", SOURCE_ROOTS)
def test_each_readme_names_every_module(root: str) -> None:
    readme = (ROOT / root / "README.md").read_text()
    modules = [path.relative_to(ROOT / root) for path in (ROOT / root).rglob("*.py") if path.name != "__init__.py"]
    missing = [str(path) for path in modules if path.name not in readme]
    assert missing == []
