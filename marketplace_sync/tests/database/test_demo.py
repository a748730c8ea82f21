"""The demo, before it starts a program."""

import pytest
from django.core.management import CommandError, call_command

from marketplace_sync.demo import _changes
from marketplace_sync.tests.support.live_feed import new_pen, put

pytestmark = pytest.mark.django_db(transaction=True)


def test_demo_prints_each_change_once() -> None:
    pen = new_pen()
    for number in range(5):
        pen.write(put(f"s{number}"))
    first = _changes(0, 3)
    assert "s2" in first and first.endswith("and 2 more")
    second = _changes(3, 5)
    assert "s4" in second and second.endswith("and 1 more")


@pytest.mark.parametrize("port", [-1, 65_536, 10**30])
def test_demo_refuses_an_impossible_port(port: int) -> None:
    with pytest.raises(CommandError, match="Use a number from 0"):
        call_command("demo", port=port)
