"""The pages of a listing that are requested, whatever totals the server reports."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketplace_sync.engine.pages import EMPTY_PAGES_END, PagePlan
from marketplace_sync.protocol.events import SkillPage


def page(
    rows: int, *, total: int | None = None, total_pages: int | None = None, page_size: int | None = None
) -> SkillPage:
    return SkillPage((), (), rows, None, page_size, total, total_pages)


class Server:
    """An honest server: `size` skills in pages of `most` at most, with totals or without."""

    def __init__(self, size: int, *, most: int = 1000, totals: bool = True, reports_page_size: bool = True) -> None:
        self.size = size
        self.most = most
        self.totals = totals
        self.reports_page_size = reports_page_size

    def __call__(self, number: int, page_size: int) -> tuple[SkillPage, range]:
        width = min(page_size, self.most)
        rows = range((number - 1) * width, max((number - 1) * width, min(number * width, self.size)))
        totals = {"total": self.size, "total_pages": -(-self.size // width)} if self.totals else {}
        return page(len(rows), page_size=width if self.reports_page_size else None, **totals), rows


Answer = Callable[[int, int], tuple[SkillPage, range]]


def read(
    answer: Answer, *, page_size: int = 10, max_pages: int = 100, pick: Callable[[int], int] = lambda _: 0
) -> tuple[PagePlan, list[int], set[int]]:
    """Read a listing as the daemon does. Return the plan, the pages in the order of their requests, and the rows.

    `pick` chooses which of the pages under way, of which it gets the number, is answered next.
    """
    plan = PagePlan(page_size, max_pages)
    requested: list[int] = []
    seen: set[int] = set()
    under_way: list[int] = []
    while not plan.done:
        while (number := plan.next_page()) is not None:
            requested.append(number)
            under_way.append(number)
            assert len(under_way) <= plan.parallel
        assert requested == list(range(1, len(requested) + 1))
        assert len(requested) <= max_pages
        if not under_way:
            break
        number = under_way.pop(pick(len(under_way)))
        came, rows = answer(number, page_size)
        plan.read(number, came, new=len(set(rows) - seen))
        seen.update(rows)
    assert plan.next_page() is None
    assert plan.done
    assert plan.pages_read == len(requested)
    return plan, requested, seen


def test_with_totals_every_page_is_requested_once_and_none_after_the_last() -> None:
    plan, requested, seen = read(Server(35))
    assert (requested, seen, plan.problem) == ([1, 2, 3, 4], set(range(35)), "")
    assert (plan.first_total, plan.last_total, plan.last_page) == (35, 35, 4)


def test_the_first_page_is_requested_alone_and_then_four_at_a_time() -> None:
    plan = PagePlan(10, 100)
    assert (plan.next_page(), plan.next_page()) == (1, None)
    assert not plan.done
    plan.read(1, page(10, total=95), new=10)
    assert [plan.next_page() for _ in range(5)] == [2, 3, 4, 5, None]
    plan.read(4, page(10, total=95), new=10)
    assert [plan.next_page() for _ in range(2)] == [6, None]


def test_without_totals_pages_are_requested_one_by_one_until_a_short_one() -> None:
    _, requested, seen = read(Server(35, totals=False))
    assert (requested, seen) == ([1, 2, 3, 4], set(range(35)))
    plan = PagePlan(10, 100)
    plan.next_page()
    plan.read(1, page(10), new=10)
    assert [plan.next_page() for _ in range(2)] == [2, None]


def test_without_totals_a_full_last_page_costs_one_more() -> None:
    _, requested, seen = read(Server(30, totals=False))
    assert (requested, seen) == ([1, 2, 3, 4], set(range(30)))


def test_without_totals_a_page_without_new_rows_is_the_last() -> None:
    # A bare list without pages: the same rows for every page that is requested.
    plan, requested, seen = read(lambda number, size: (page(500), range(500)))
    assert (requested, len(seen), plan.problem) == ([1, 2], 500, "")


def test_an_empty_catalogue_is_one_page_and_no_problem() -> None:
    for answer in (Server(0), Server(0, totals=False)):
        plan, requested, _ = read(answer)
        assert (requested, plan.problem) == ([1], "")


@pytest.mark.parametrize("reports_page_size", [True, False])
def test_a_server_with_smaller_pages_than_requested_is_read_completely(reports_page_size: bool) -> None:
    server = Server(35, most=4, reports_page_size=reports_page_size)
    plan, requested, seen = read(lambda number, size: server(number, size))
    assert (len(requested), seen, plan.problem) == (9, set(range(35)), "")


def test_smaller_pages_are_recognised_by_the_reported_page_size_without_totals() -> None:
    _, requested, seen = read(Server(35, most=4, totals=False))
    assert (len(requested), seen) == (9, set(range(35)))


def test_smaller_pages_are_recognised_by_a_short_first_page_with_a_total_alone() -> None:
    server = Server(35, most=4, totals=False, reports_page_size=False)

    def answer(number: int, size: int) -> tuple[SkillPage, range]:
        came, rows = server(number, size)
        return page(came.rows, total=35), rows

    _, requested, seen = read(answer)
    assert (len(requested), seen) == (9, set(range(35)))


def test_a_total_that_is_too_high_ends_after_empty_pages_and_is_a_problem() -> None:
    server = Server(25)

    def answer(number: int, size: int) -> tuple[SkillPage, range]:
        came, rows = server(number, size)
        return page(came.rows, total=10_000, total_pages=1_000, page_size=size), rows

    plan, requested, seen = read(answer)
    assert seen == set(range(25))
    assert plan.problem == "page 4 of 1000 came empty"
    assert len(requested) <= 3 + EMPTY_PAGES_END + plan.parallel


def test_a_total_that_is_too_low_is_exceeded_as_long_as_full_pages_come() -> None:
    server = Server(35)

    def answer(number: int, size: int) -> tuple[SkillPage, range]:
        came, rows = server(number, size)
        return page(came.rows, total=12, total_pages=2, page_size=size), rows

    for pick in (lambda _: 0, lambda under_way: under_way - 1):
        plan, requested, seen = read(answer, pick=pick)
        assert (requested, seen, plan.problem) == ([1, 2, 3, 4], set(range(35)), "")


def test_a_total_that_is_too_low_on_a_server_without_pages_ends() -> None:
    _, requested, seen = read(lambda number, size: (page(500, total=10), range(500)))
    assert (len(requested), len(seen)) == (2, 500)


def test_a_catalogue_that_shrinks_while_it_is_read_shows_in_its_totals() -> None:
    server = Server(40)

    def answer(number: int, size: int) -> tuple[SkillPage, range]:
        server.size = 40 if number < 3 else 15
        return server(number, size)

    plan, _, _ = read(answer)
    # No page is missing by its own totals; that they moved makes the reading unclean.
    assert (plan.problem, plan.first_total, plan.last_total) == ("", 40, 15)


def test_a_catalogue_that_grows_while_it_is_read_is_read_to_its_new_end() -> None:
    server = Server(20)

    def answer(number: int, size: int) -> tuple[SkillPage, range]:
        server.size = 20 if number == 1 else 45
        return server(number, size)

    plan, requested, seen = read(answer)
    assert (requested, seen) == ([1, 2, 3, 4, 5], set(range(45)))
    assert (plan.first_total, plan.last_total) == (20, 45)


def test_an_empty_page_in_the_middle_is_a_problem_and_the_rest_is_read() -> None:
    server = Server(100)

    def answer(number: int, size: int) -> tuple[SkillPage, range]:
        came, rows = server(number, size)
        return (page(0, total=100, total_pages=10), range(0)) if number == 5 else (came, rows)

    plan, requested, seen = read(answer)
    assert plan.problem == "page 5 of 10 came empty"
    assert len(requested) == 10
    assert seen == set(range(100)) - set(range(40, 50))


def test_an_empty_first_page_of_many_ends_the_reading_with_a_problem() -> None:
    plan, requested, _ = read(lambda number, size: (page(0, total=100, total_pages=10, page_size=size), range(0)))
    assert plan.problem == "page 2 of 10 came empty"
    assert len(requested) <= 1 + plan.parallel + EMPTY_PAGES_END


def test_a_listing_without_end_is_given_up_after_max_pages() -> None:
    def endless(number: int, size: int) -> tuple[SkillPage, range]:
        return page(size), range(number * size, (number + 1) * size)

    plan, requested, _ = read(endless, max_pages=7)
    assert (len(requested), plan.problem) == (7, "the listing has more than 7 pages (ATOM_SAAS_MAX_PAGES)")


def test_a_listing_of_exactly_max_pages_is_complete() -> None:
    plan, requested, _ = read(Server(70), max_pages=7)
    assert (len(requested), plan.problem) == (7, "")


figures = st.none() | st.integers(0, 300)
pages = st.builds(
    page, st.integers(0, 12), total=figures, total_pages=figures, page_size=st.none() | st.integers(1, 20)
)


@given(st.lists(st.tuples(pages, st.integers(0, 12)), min_size=1, max_size=30), st.data())
def test_the_reading_ends_whatever_the_server_answers(
    answers: list[tuple[SkillPage, int]], data: st.DataObject
) -> None:
    def answer(number: int, size: int) -> tuple[SkillPage, range]:
        came, new = answers[(number - 1) % len(answers)]
        return came, range(number * 100, number * 100 + min(new, came.rows))

    read(answer, max_pages=40, pick=lambda under_way: data.draw(st.integers(0, under_way - 1)))


@given(
    st.integers(0, 300), st.integers(1, 50), st.integers(1, 50), st.sampled_from(["all", "none", "total"]), st.data()
)
def test_every_page_of_an_honest_server_is_read(
    size: int, requested_size: int, most: int, reported: str, data: st.DataObject
) -> None:
    server = Server(size, most=most, totals=reported != "none")

    def answer(number: int, page_size: int) -> tuple[SkillPage, range]:
        came, rows = server(number, page_size)
        return (page(came.rows, total=size), rows) if reported == "total" else (came, rows)

    def pick(under_way: int) -> int:
        return data.draw(st.integers(0, under_way - 1)) if under_way > 1 else 0

    plan, requested, seen = read(answer, page_size=requested_size, max_pages=1000, pick=pick)
    assert (seen, plan.problem) == (set(range(size)), "")
    # At most one page more than needed, where only an empty page shows the end.
    width = min(requested_size, most)
    assert len(requested) <= max(1, -(-size // width)) + (reported == "none")
