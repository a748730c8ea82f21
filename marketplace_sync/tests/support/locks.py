"""The lock files of `requirements/`, read for tests."""

import re
from dataclasses import dataclass
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
    """What `requirements/NAME.in` asks for, the files that it includes aside."""
    lines = (FOLDER / f"{name}.in").read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-r"))]


def locked(name: str) -> list[Locked]:
    """What `requirements/NAME.txt` installs."""
    text = re.sub(r"^\s*#.*\n", "", (FOLDER / f"{name}.txt").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found = []
    for line in filter(None, map(str.strip, text.splitlines())):
        requirement = Requirement(line.partition(" --hash")[0].strip())
        (only,) = requirement.specifier
        assert only.operator == "==" and "*" not in only.version, line
        applies = requirement.marker is None or requirement.marker.evaluate()
        found.append(Locked(requirement.name, only.version, applies, tuple(re.findall(r"--hash=(\S+)", line))))
    return found
