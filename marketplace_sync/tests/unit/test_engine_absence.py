"""Law 5: a skill that was not listed is removed if its absence is proved; too many removals need approval."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketplace_sync.engine.absence import APPROVAL_ABOVE, MAX_PROOFS, Listing, Verdict, judge, unclean_reason


def listing(**changes: Any) -> Listing:
    """Return a clean full sync of 100 skills."""
    clean: dict[str, Any] = {
        "listed": 100, "first_total": 100, "last_total": 100, "problem": "", "unreadable": 0, "moves": 0,
    }  # fmt: skip
    return Listing(**{**clean, **changes})


@pytest.mark.parametrize(
    "clean",
    [
        listing(),
        listing(first_total=None, last_total=None),
        listing(listed=0, first_total=0, last_total=0),
        listing(last_total=101, moves=1),
        listing(last_total=95, listed=95, moves=5),
        listing(listed=99, moves=1),  # one that the stream reported moved from one page to another
        listing(listed=103, moves=3),
        listing(listed=101),  # one came and one went while it was read: both were seen
    ],
)
def test_a_complete_listing_that_matches_its_totals_is_clean(clean: Listing) -> None:
    assert unclean_reason(clean) == ""


@pytest.mark.parametrize(
    ("unclean", "reason"),
    [
        (listing(problem="page 2 of 3 came empty"), "page 2 of 3 came empty"),
        (listing(unreadable=2), "2 listed records had no readable id"),
        (
            listing(last_total=102, moves=1),
            "the total moved from 100 to 102 while it was read, and the stream reported 1 changes",
        ),
        (
            listing(last_total=98, listed=98),
            "the total moved from 100 to 98 while it was read, and the stream reported 0 changes",
        ),
        (listing(listed=99), "99 skills were listed, and the reported total is 100"),
        (listing(listed=90, moves=9), "90 skills were listed, and the reported total is 100"),
        (listing(listed=0), "0 skills were listed, and the reported total is 100"),
    ],
)
def test_an_unclean_listing_has_its_reason(unclean: Listing, reason: str) -> None:
    assert unclean_reason(unclean) == reason


def ids(count: int, start: int = 0) -> list[str]:
    return [f"s{number:05}" for number in range(start, start + count)]


def verdict_on(absent: list[str], **changes: Any) -> Verdict:
    """Judge after the first clean sync of a mirror of 1000, without announcements and approvals."""
    facts: dict[str, Any] = {
        "clean": True, "listed": 1000 - len(absent), "mirror_size": 1000,
        "announced": frozenset(), "absent_before": frozenset(), "approved": frozenset(),
    }  # fmt: skip
    return judge(absent, **{**facts, **changes})


def test_without_absent_skills_there_is_nothing_to_do() -> None:
    verdict = verdict_on([])
    assert (verdict.remove, verdict.prove, verdict.needs_approval, verdict.again) == (set(), (), set(), set())
    assert verdict_on([], listed=0, mirror_size=0).approval_reason == ""


def test_up_to_twenty_absent_skills_are_fetched_one_by_one() -> None:
    verdict = verdict_on(ids(20))
    assert (verdict.prove, verdict.again, verdict.remove) == (tuple(ids(20)), set(), set())


def test_more_than_twenty_absent_skills_wait_for_a_second_clean_sync() -> None:
    verdict = verdict_on(ids(21))
    assert (verdict.prove, verdict.again, verdict.remove) == ((), set(ids(21)), set())


def test_a_skill_missing_in_two_clean_syncs_is_removed() -> None:
    verdict = verdict_on(ids(50), absent_before=frozenset(ids(50)))
    assert (verdict.remove, verdict.prove, verdict.again) == (set(ids(50)), (), set())


def test_a_skill_missing_in_this_sync_alone_is_fetched() -> None:
    verdict = verdict_on(ids(50), absent_before=frozenset(ids(45)))
    assert (verdict.remove, verdict.prove) == (set(ids(45)), tuple(ids(5, 45)))


def test_a_skill_that_is_listed_again_is_not_judged() -> None:
    assert verdict_on([], absent_before=frozenset(ids(50))).remove == set()


@pytest.mark.parametrize(
    ("size", "absent", "needs_approval"),
    [
        (30, 20, False),
        (30, 21, True),
        (200, 20, False),
        (200, 21, True),
        (255, 25, False),
        (255, 26, True),
        (1000, 100, False),
        (1000, 101, True),
    ],
)
def test_more_removals_than_twenty_and_a_tenth_need_approval(size: int, absent: int, needs_approval: bool) -> None:
    verdict = verdict_on(ids(absent), mirror_size=size, listed=size - absent, absent_before=frozenset(ids(absent)))
    assert bool(verdict.needs_approval) is needs_approval
    if needs_approval:
        assert verdict.needs_approval == set(ids(absent))
        assert verdict.remove == set()
        assert f"{absent} of {size} skills are no longer listed" in verdict.approval_reason


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_an_empty_listing_needs_approval_however_small_the_mirror(size: int) -> None:
    verdict = verdict_on(ids(size), listed=0, mirror_size=size)
    assert (verdict.needs_approval, verdict.prove, verdict.remove) == (set(ids(size)), (), set())
    assert verdict.approval_reason == f"the listing is empty, and the mirror has {size} skills"


def test_announced_removals_need_no_approval_and_still_have_to_be_proved() -> None:
    announced = frozenset(ids(500))
    first = verdict_on(ids(500), announced=announced)
    assert (first.needs_approval, first.again, first.remove) == (set(), set(ids(500)), set())
    second = verdict_on(ids(500), announced=announced, absent_before=frozenset(ids(500)))
    assert (second.needs_approval, second.remove) == (set(), set(ids(500)))
    assert verdict_on(ids(10), announced=announced, listed=0, mirror_size=10).needs_approval == set()


def test_only_removals_that_were_not_announced_count_and_need_approval() -> None:
    verdict = verdict_on(ids(301), announced=frozenset(ids(200)))
    assert verdict.needs_approval == set(ids(101, 200))
    assert verdict.again == set(ids(200))
    assert verdict_on(ids(300), announced=frozenset(ids(200))).needs_approval == set()


def test_approval_removes_skills_that_are_still_absent_and_no_others() -> None:
    approved = frozenset(ids(500))
    verdict = verdict_on(ids(400), approved=approved)
    assert (verdict.remove, verdict.needs_approval) == (set(ids(400)), set())
    grown = verdict_on(ids(650), approved=approved)
    assert (grown.remove, grown.needs_approval) == (set(ids(500)), set(ids(150, 500)))


@pytest.mark.parametrize("facts", [{"approved": frozenset(ids(30))}, {"absent_before": frozenset(ids(30))}, {}])
def test_an_unclean_sync_removes_only_what_a_404_proves(facts: dict[str, Any]) -> None:
    verdict = verdict_on(ids(30), clean=False, **facts)
    assert (verdict.remove, verdict.needs_approval, verdict.again) == (set(), set(), set())
    assert verdict.prove == tuple(ids(MAX_PROOFS))


some = st.frozensets(st.sampled_from(ids(60)))


@given(some, some, some, some, st.booleans(), st.integers(0, 300), st.integers(0, 100))
def test_the_sets_are_disjoint_and_contain_every_absent_skill_of_a_clean_sync(
    absent: frozenset[str],
    announced: frozenset[str],
    before: frozenset[str],
    approved: frozenset[str],
    clean: bool,
    more: int,
    listed: int,
) -> None:
    verdict = verdict_on(
        sorted(absent), announced=announced, absent_before=before, approved=approved, clean=clean, listed=listed,
        mirror_size=len(absent) + more,
    )  # fmt: skip
    parts = [verdict.remove, frozenset(verdict.prove), verdict.needs_approval, verdict.again]
    together = frozenset().union(*parts)
    assert sum(map(len, parts)) == len(together)
    assert together <= absent
    assert len(verdict.prove) <= MAX_PROOFS
    assert bool(verdict.needs_approval) == bool(verdict.approval_reason)
    if clean:
        assert together == absent
        assert verdict.remove <= approved | before
        assert not verdict.needs_approval & (announced | approved)
        unforeseen = absent - announced - approved
        if len(unforeseen) > max(APPROVAL_ABOVE, (len(absent) + more) / 10) or (unforeseen and not listed):
            assert verdict.needs_approval == unforeseen
    else:
        assert not verdict.remove | verdict.needs_approval
