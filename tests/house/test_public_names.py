"""The public names: lazy, complete, and unharmed by the order of imports."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import pytest

import infermix
from infermix import _HOMES, _VERBS

ROOT = Path(__file__).parents[2]


def exists(module: str) -> bool:
    return find_spec(module) is not None


@pytest.mark.parametrize("name", sorted({*_HOMES, *_VERBS}))
def test_each_public_name_resolves(name: str) -> None:
    home = (_HOMES | _VERBS)[name]
    if not exists(home):
        pytest.skip(f"{home} is not there yet")
    target = getattr(import_module(home), name)
    found = getattr(infermix, name)
    assert callable(found)
    if name in _HOMES:
        assert found is target
    else:
        assert found is sys.modules[f"infermix.{name}"]


def test_all_names_every_public_name_and_dir_shows_it() -> None:
    assert set(infermix.__all__) == {*_HOMES, *_VERBS, "__version__"}
    assert infermix.__all__ == sorted(infermix.__all__)
    assert set(infermix.__all__) <= set(dir(infermix))
    assert not set(_HOMES) & set(_VERBS)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'infermix' has no attribute 'simulte'"):
        _ = infermix.simulte


@pytest.mark.parametrize("first", ["", "import infermix.catalog.load", "from infermix.catalog import load"])
@pytest.mark.parametrize("second", ["", "import infermix.catalog.query as q; assert q.shelves"])
def test_a_part_that_is_also_a_verb_is_both_in_every_order(first: str, second: str) -> None:
    use = "assert 'h200-sxm' in im.catalog().chips"
    program = f"{first}\nimport infermix as im\n{second}\n{use}\nfrom infermix import catalog\ncatalog()"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_version_is_the_installed_one() -> None:
    try:
        installed = version("infermix")
    except PackageNotFoundError:
        pytest.skip("infermix runs from its source folder without being installed")
    assert infermix.__version__ == installed


def test_the_command_is_where_the_project_says() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    module, _, function = scripts["infermix"].partition(":")
    if not exists(module):
        pytest.skip(f"{module} is not there yet")
    assert callable(getattr(import_module(module), function))
