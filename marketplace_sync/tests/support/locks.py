"""Read the lock files of `requirements/`."""

import re
import tomllib
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from packaging.requirements import Requirement

FOLDER = Path(__file__).resolve().parents[3] / "requirements"


@dataclass(frozen=True)
class Locked:
    """One package of a lock. `applies`: on this Python and system."""

    name: str
    version: str
    applies: bool
    hashes: tuple[str, ...]


def listed(name: str) -> list[Requirement]:
    """Return what `requirements/NAME.in` requires; for "runtime" what pyproject.toml requires, with all extras."""
    if name == "runtime":
        project = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text())["project"]
        lines = [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())]
    else:
        lines = (FOLDER / f"{name}.in").read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def locked(name: str) -> list[Locked]:
    """Return what `requirements/NAME.txt` installs."""
    text = re.sub(r"^\s*#.*\n", "", (FOLDER / f"{name}.txt").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found = []
    for line in filter(None, map(str.strip, text.splitlines())):
        requirement = Requirement(line.partition(" --hash")[0].strip())
        (only,) = requirement.specifier
        assert only.operator == "==" and "*" not in only.version, line
        applies = requirement.marker is None or requirement.marker.evaluate()
        found.append(Locked(requirement.name, only.version, applies, tuple(re.findall(r"--hash=(\S+)", line))))
    return found
