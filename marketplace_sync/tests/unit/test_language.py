"""The language of the project: no private words (docs/glossary.md), and no two classes of the same name."""

import pytest

from marketplace_sync.tests.support.language import findings_in, same_names, tracked


def test_no_private_words() -> None:
    read = list(tracked())
    assert len(read) > 500
    assert [finding for path, text in read for finding in findings_in(path, text)] == []


def test_no_two_classes_have_the_same_name() -> None:
    modules = [(path, text) for path, text in tracked() if path.endswith(".py") and "/tests/" not in path]
    assert len(modules) > 200
    assert same_names(modules) == {}


@pytest.mark.parametrize(
    ("path", "line", "rule"),
    [
        ("docs/a.md", "The daemon is told to stop.", "tell, told"),
        ("docs/a.md", "It says so.", "say, said"),
        ("a.py", "held_rows = {}", "hold, held"),
        ("a.py", "class HeldSkill:", "hold, held"),
        ("a.py", "MAX_TOLD_BYTES = 4", "tell, told"),
        ("a.py", "# The letter of a row.", "letter"),
        ("a.py", "pass_count = 1", "pass"),
        ("a.py", "class PassReport:", "pass"),
        ("a.py", "# A whole pass takes 3 s.", "pass"),
        ("a.py", "# 100 messages a second.", "a second"),
        ("docs/a.md", "Everything happens at once.", "at once"),
        ("a.py", "# A resting stream waits.", "resting"),
        ("docs/a.md", "Once the mirror is level, it follows.", "level with"),
    ],
)
def test_a_private_word_is_found(path: str, line: str, rule: str) -> None:
    assert [(finding.line, finding.rule) for finding in findings_in(path, f"\n{line}\n")] == [(2, rule)]


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("a.py", "    pass"),
        ("a.py", "Popen(command, pass_fds=[3])"),
        ("a.py", "proxy_pass http://127.0.0.1:8000;"),
        ("a.py", "threshold = placeholder"),
        ("a.py", "proxy_pass http://127.0.0.1;"),
        ("a.py", 'state = "held"  # SyncRun.State.HELD, held_count'),
        ("docs/a.md", "Removals on hold need approval; the run's state is `held`."),
        ("docs/a.md", "A dead letter keeps the reason."),
        ("a.py", "RUN_ON_HOLD = rows_on_hold_now  # held_skill_ids"),
        ("a.py", 'router.register("admin/dead-letters")  # two letters or digits'),
        ("a.py", 'code = "too_many_at_once"'),
        ("docs/a.md", "At most 500. A page has rows."),
        ("docs/a.md", "The release before stores `resting`."),
        ("docs/a.md", "A word has two letters or digits."),
        ("a.py", 'removed_at = DateTimeField(db_column="buried_at")'),
        ("a.py", "from marketplace_sync.signals import removals_held"),
        ("docs/a.md", "100 messages per second; the log level is INFO."),
        ("marketplace_sync/simulator/a.py", "faults = []"),
    ],
)
def test_standard_words_are_not_found(path: str, line: str) -> None:
    assert list(findings_in(path, line)) == []


def test_a_class_name_used_twice_is_found() -> None:
    modules = [
        ("a.py", "class Plan: ..."),
        ("b.py", "class Plan: ...\nclass Row:\n    class State: ..."),
        ("c.py", "class State: ..."),
    ]
    assert same_names(modules) == {"Plan": ["a.py", "b.py"]}
