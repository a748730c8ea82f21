"""Find private words and classes of the same name: `python -m marketplace_sync.tests.support.language [PATH …]`.

The words and what to write instead are those of docs/glossary.md.
"""

import ast
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).resolve().parents[3]
# The run state and what is named after it; removed from a line before it is searched for "hold".
_HELD_STATE = re.compile(
    r"""["'`]held["'`]|\bHELD\b|held_(?:count|changed|removals?|runs?|reason|skill_ids|at)\b|removals_held\b|Held(?:Removal|Changed)\w*"""
    r"""|\b[Hh]eld[ -](?:removal|run|sync)s?\b|\b[Rr]emovals?\ (?:that\ )?(?:is|are|was|were)\ held\b"""
    r"""|(?:\b|_)[Oo]n[ _]?[Hh]old(?![a-z])|OnHold|(?:\b|_)ON_HOLD\b|^ +held = RunSerializer|state=held"""
)
# Names in the database that a release already carries.
_DATABASE_NAME = re.compile(r"""db_column="\w+"|\bname="held_once_a_run\"""")
# Quoted values that other programs know: those of the release before (docs/operations.md, Upgrading), and an API code.
_OLD_STATE = re.compile(r"""["'`](?:resting|MirrorStreamResting|MirrorRemovalsHeld|too_many_at_once)["'`]""")
_RULES = {
    "tell, told": r"tell|tells|told|telling",
    "say, said": r"say|says|said|saying",
    "hold, held": r"hold|holds|held|holding",
    "lack": r"lack|lacks|lacked|lacking",
    "mend": r"mend|mends|mended|mending",
    "anew": r"anew|afresh",
    "whoever": r"whoever|whomever",
    "looks so": r"looks? so",
    "by itself": r"by (?:itself|themselves|himself)",
    "at once": r"at once",
    "level with": r"level with|(?:is|are|be|was|were|not|ends?|stays?) level",
    "grave, bury": r"graves?|bury|buries|buried",
    "door": r"doors?",
    "letter": r"(?<!dead[ -])(?<!capital )(?<!small )letters?(?! (?:or|and) digits?)",
    "resting": r"resting",
    "seat, lane, follower": r"seats?|lanes?|followers?",
    "pass": r"(?:a|the|full|this|that|next|first|second|each|every|last|one|no|two|three|clean|unchanged|running|later"
    r"|earlier|whole|single|regular|any|its|own|such|same|of|between|by) pass(?:es)?",
    "a second": r"\d[\d,]*(?:\.\d+)? (?:(?!of|for|half)\w+ ){0,2}an? "
    r"(?:second|minute|hour|day|batch|row|skill|page|request)",
}
# Faults are what the simulator simulates, and what tests do; elsewhere it is an error or a problem.
_FAULT = r"faults?"
_FAULTS_ALLOWED = re.compile(r"/simulator/|/tests/|runsimulator|demo\.py$|\.md$|^docs/|^bench/|^deploy/")
_WORD_RULES = {name: re.compile(rf"\b(?:{rule})\b") for name, rule in _RULES.items()}
_PASS_NAME = re.compile(r"(?<!\bproxy)_pass(?:es)?\b|\bpass(?:es)?_(?!fds\b)|\bPass(?:es)?(?=[A-Z])")
# Written by others, data, what a release already carries, and the pages that name the words.
_SKIPPED = re.compile(
    r"/migrations/|/static/.*/vendor/|uPlot|^requirements/.*\.txt$|^requirements\.txt$|\.(?:json|png|svg|ico|woff2)$|/corpus/"
    r"|^docs/glossary\.md$|tests/support/language\.py$|tests/unit/test_language\.py$|^LICENSE$|^bench/results/"
)


class Finding(NamedTuple):
    """One private word: the file, its line from 1 on, the rule and the line's text."""

    path: str
    line: int
    rule: str
    text: str


def words_of(line: str) -> str:
    """Return the line in lower case, with its identifiers taken apart at underscores and capitals."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", line)
    return apart.replace("_", " ").lower()


def _stripped(line: str) -> str:
    """Return the line without the run state `held`, the old name of `suspended`, and names in the database."""
    for allowed in (_HELD_STATE, _OLD_STATE, _DATABASE_NAME):
        line = allowed.sub("", line)
    return line


def findings_in(path: str, text: str) -> Iterator[Finding]:
    """Yield the private words of a file; `path` is relative to the project."""
    for number, line in enumerate(text.splitlines(), 1):
        words = words_of(_stripped(line))
        for name, rule in _WORD_RULES.items():
            if rule.search(words):
                yield Finding(path, number, name, line.strip())
        if path.endswith(".py") and _PASS_NAME.search(line):
            yield Finding(path, number, "pass", line.strip())
        if not _FAULTS_ALLOWED.search(path) and re.search(rf"\b{_FAULT}\b", words):
            yield Finding(path, number, "fault", line.strip())


def tracked(paths: Iterable[str] = ()) -> Iterator[tuple[str, str]]:
    """Yield the path and the text of each file of the repository that people read."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *paths],
        cwd=PROJECT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for path in filter(None, listed.split("\0")):
        if _SKIPPED.search(path) or not (PROJECT / path).is_file():
            continue
        yield path, (PROJECT / path).read_text()


def classes_in(text: str) -> Iterator[str]:
    """Yield the names of a module's classes. The class around them names nested ones, such as `SyncRun.State`."""
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef):
            yield node.name


def same_names(modules: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Return each class name that stands in more than one module, with their paths.

    Django asks every management command to call its class `Command`: those do not count.
    """
    found: dict[str, list[str]] = defaultdict(list)
    for path, text in modules:
        for name in classes_in(text):
            if name != "Command" or "/management/commands/" not in path:
                found[name].append(path)
    return {
        name: paths
        for name, paths in found.items()
        if len(paths) > 1 and (name != "Command" or len(modeled(paths)) > 1)
    }


def modeled(paths: Iterable[str]) -> list[str]:
    """Return those of the paths that are no management command, each of which has to name its class `Command`."""
    return [path for path in paths if "/management/commands/" not in path]


def main(paths: list[str]) -> None:
    """Print every finding, and how many there are."""
    found = [finding for path, text in tracked(paths) for finding in findings_in(path, text)]
    for path, line, rule, text in found:
        print(f"{path}:{line}: {rule}: {text[:140]}")
    code = [(path, text) for path, text in tracked(paths) if path.endswith(".py") and "/tests/" not in path]
    twice = same_names(code)
    for name, where in sorted(twice.items()):
        print(f"{name} stands in {', '.join(where)}")
    print(f"{len(found)} private words, {len(twice)} class names used twice")


if __name__ == "__main__":
    main(sys.argv[1:])
