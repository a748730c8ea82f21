"""What is installed is locked: every package at one version, by its hashes, as the lists ask for."""

import re
import tomllib
from importlib.metadata import requires, version

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from marketplace_sync import __version__
from marketplace_sync.tests.support.locks import FOLDER, listed, locked

PROJECT = FOLDER.parent
LISTS = sorted(["runtime", *(path.stem for path in FOLDER.glob("*.in"))])


def test_each_list_has_its_lock() -> None:
    assert LISTS == sorted(path.stem for path in FOLDER.glob("*.txt")) == ["deploy", "fuzz", "runtime", "test"]


@pytest.mark.parametrize("name", LISTS)
def test_every_locked_package_has_one_version_and_hashes(name: str) -> None:
    pins = locked(name)
    assert len(pins) >= len(listed(name))
    assert [
        pin.name
        for pin in pins
        if not pin.hashes or not all(re.fullmatch("sha256:[0-9a-f]{64}", it) for it in pin.hashes)
    ] == []
    assert len({canonicalize_name(pin.name) for pin in pins}) == len(pins)


@pytest.mark.parametrize("name", LISTS)
def test_the_lock_has_what_the_list_asks_for(name: str) -> None:
    pins = {canonicalize_name(pin.name): pin.version for pin in locked(name)}
    for wanted in listed(name):
        assert pins[canonicalize_name(wanted.name)] in wanted.specifier, wanted


def test_what_testing_installs_contains_what_running_installs() -> None:
    assert set(locked("runtime")) <= set(locked("test"))


@pytest.mark.parametrize("name", LISTS)
def test_a_lock_names_no_index_and_no_file(name: str) -> None:
    text = (FOLDER / f"{name}.txt").read_text()
    assert not re.search(r"://|--(extra-)?index|--find-links|--trusted-host|^-[ifcre] |@ ", text, re.MULTILINE)


def test_the_runtime_lock_is_complete_for_this_python() -> None:
    """Each package that one of them needs is locked too; the environment markers decide, as pip lets them."""
    pins = {canonicalize_name(pin.name): pin for pin in locked("runtime")}
    extras = {canonicalize_name(wanted.name): wanted.extras for wanted in listed("runtime")}
    for name, pin in pins.items():
        if not pin.applies:
            continue
        assert version(name) == pin.version, name
        for text in requires(name) or ():
            needed = Requirement(text)
            chosen = [{"extra": extra} for extra in extras.get(name, ())] or [{"extra": ""}]
            if needed.marker is None or any(needed.marker.evaluate(environment) for environment in chosen):
                found = pins[canonicalize_name(needed.name)]
                assert found.version in needed.specifier, f"{name} needs {needed}"


def test_requirements_txt_installs_the_whole_lock() -> None:
    lines = (PROJECT / "requirements.txt").read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == ["-r requirements/test.txt"]


def test_the_package_requires_ranges() -> None:
    """An app that pins exact versions could not be installed beside others."""
    for wanted in listed("runtime"):
        assert [bound.operator for bound in wanted.specifier if bound.operator in ("==", "===")] == [], wanted
        assert wanted.specifier, wanted


def test_the_version_has_one_place() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    assert "version" in project["project"]["dynamic"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "marketplace_sync.__version__"}
    assert f"## [{__version__}]" in (PROJECT / "CHANGELOG.md").read_text()
