"""Which pages of a listing are asked for, whatever the server says of them."""

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
    """An honest one: `size` skills in pages of `most` at most, with totals or without."""

    def __init__(self, size: int, *, most: int = 1000, totals: bool = True, says_page_size: bool = True) -> None:
        self.size = size
        self.most = most
        self.totals = totals
        self.says_page_size = says_page_size

    def __call__(self, number: int, page_size: int) -> tuple[SkillPage, range]:
        width = min(page_size, self.most)
        rows = range((number - 1) * width, max((number - 1) * width, min(number * width, self.size)))
        told = {"total": self.size, "total_pages": -(-self.size // width)} if self.totals else {}
        return page(len(rows), page_size=width if self.says_page_size else None, **told), rows


Answer = Callable[[int, int], tuple[SkillPage, range]]


def read(
    answer: Answer, *, page_size: int = 10, max_pages: int = 100, pick: Callable[[int], int] = lambda _: 0
) -> tuple[PagePlan, list[int], set[int]]:
    """Read a listing as the daemon does; the plan, the pages in the order asked for, and the rows that came.

    `pick`: which of so many pages under way is answered next.
    """
    plan = PagePlan(page_size, max_pages)
    asked: list[int] = []
    seen: set[int] = set()
    under_way: list[int] = []
    while not plan.done:
        while (number := plan.next_page()) is not None:
            asked.append(number)
            under_way.append(number)
            assert len(under_way) <= plan.parallel
        assert asked == list(range(1, len(asked) + 1))
        assert len(asked) <= max_pages
        if not under_way:
            break
        number = under_way.pop(pick(len(under_way)))
        came, rows = answer(number, page_size)
        plan.read(number, came, new=len(set(rows) - seen))
        seen.update(rows)
    assert plan.next_page() is None
    assert plan.done
    assert plan.pages_read == len(asked)
    return plan, asked, seen


def test_with_totals_every_page_is_asked_for_once_and_none_past_the_end() -> None:
    plan, asked, seen = read(Server(35))
    assert (asked, seen, plan.problem) == ([1, 2, 3, 4], set(range(35)), "")
    assert (plan.first_total, plan.last_total, plan.last_page) == (35, 35, 4)


def test_the_first_page_goes_alone_and_then_four_are_under_way() -> None:
    plan = PagePlan(10, 100)
    assert (plan.next_page(), plan.next_page()) == (1, None)
    assert not plan.done
    plan.read(1, page(10, total=95), new=10)
    assert [plan.next_page() for _ in range(5)] == [2, 3, 4, 5, None]
    plan.read(4, page(10, total=95), new=10)
    assert [plan.next_page() for _ in range(2)] == [6, None]


def test_without_totals_one_page_follows_the_other_until_a_short_one() -> None:
    _, asked, seen = read(Server(35, totals=False))
    assert (asked, seen) == ([1, 2, 3, 4], set(range(35)))
    plan = PagePlan(10, 100)
    plan.next_page()
    plan.read(1, page(10), new=10)
    assert [plan.next_page() for _ in range(2)] == [2, None]


def test_without_totals_a_full_last_page_costs_one_more() -> None:
    _, asked, seen = read(Server(30, totals=False))
    assert (asked, seen) == ([1, 2, 3, 4], set(range(30)))


def test_without_totals_a_page_with_nothing_new_is_the_end() -> None:
    # A bare list that knows no pages: the same rows for every page that is asked for.
    plan, asked, seen = read(lambda number, size: (page(500), range(500)))
    assert (asked, len(seen), plan.problem) == ([1, 2], 500, "")


def test_an_empty_catalogue_is_one_page_and_no_fault() -> None:
    for answer in (Server(0), Server(0, totals=False)):
        plan, asked, _ = read(answer)
        assert (asked, plan.problem) == ([1], "")


@pytest.mark.parametrize("says_page_size", [True, False])
def test_a_server_that_gives_smaller_pages_than_asked_for_is_read_whole(says_page_size: bool) -> None:
    server = Server(35, most=4, says_page_size=says_page_size)
    plan, asked, seen = read(lambda number, size: server(number, size))
    assert (len(asked), seen, plan.problem) == (9, set(range(35)), "")


def test_smaller_pages_are_known_by_the_page_size_told_where_there_are_no_totals() -> None:
    _, asked, seen = read(Server(35, most=4, totals=False))
    assert (len(asked), seen) == (9, set(range(35)))


def test_smaller_pages_are_known_by_a_short_first_page_where_a_total_alone_is_told() -> None:
    server = Server(35, most=4, totals=False, says_page_size=False)

    def answer(number: int, size: int) -> tuple[SkillPage, range]:
        came, rows = server(number, size)
        return page(came.rows, total=35), rows

    _, asked, seen = read(answer)
    assert (len(asked), seen) == (9, set(range(35)))


def test_a_total_that_is_too_high_ends_after_empty_pages_and_is_a_fault() -> None:
    server = Server(25)

    def answer(number: int, size: int) -> tuple[SkillPage, range]:
        came, rows = server(number, size)
        return page(came.rows, total=10_000, total_pages=1_000, page_size=size), rows

    plan, asked, seen = read(answer)
    assert seen == set(range(25))
    assert plan.problem == "page 4 of 1000 came empty"
    assert len(asked) <= 3 + EMPTY_PAGES_END + plan.parallel


def test_a_total_that_is_too_low_is_read_past_as_long_as_full_pages_come() -> None:
    server = Server(35)

    def answer(number: int, size: int) -> tuple[SkillPage, range]:
        came, rows = server(number, size)
        return page(came.rows, total=12, total_pages=2, page_size=size), rows

    for pick in (lambda _: 0, lambda under_way: under_way - 1):
        plan, asked, seen = read(answer, pick=pick)
        assert (asked, seen, plan.problem) == ([1, 2, 3, 4], set(range(35)), "")


def test_a_total_that_is_too_low_on_a_server_that_knows_no_pages_ends() -> None:
    _, asked, seen = read(lambda number, size: (page(500, total=10), range(500)))
    assert (len(asked), len(seen)) == (2, 500)


def test_a_catalogue_that_shrinks_while_it_is_read_ends_and_shows_in_its_totals() -> None:
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

    plan, asked, seen = read(answer)
    assert (asked, seen) == ([1, 2, 3, 4, 5], set(range(45)))
    assert (plan.first_total, plan.last_total) == (20, 45)


def test_an_empty_page_in_the_middle_is_a_fault_and_the_rest_is_read() -> None:
    server = Server(100)

    def answer(number: int, size: int) -> tuple[SkillPage, range]:
        came, rows = server(number, size)
        return (page(0, total=100, total_pages=10), range(0)) if number == 5 else (came, rows)

    plan, asked, seen = read(answer)
    assert plan.problem == "page 5 of 10 came empty"
    assert len(asked) == 10
    assert seen == set(range(100)) - set(range(40, 50))


def test_a_first_page_that_comes_empty_while_others_are_told_ends_the_reading_as_a_fault() -> None:
    plan, asked, _ = read(lambda number, size: (page(0, total=100, total_pages=10, page_size=size), range(0)))
    assert plan.problem == "page 2 of 10 came empty"
    assert len(asked) <= 1 + plan.parallel + EMPTY_PAGES_END


def test_a_listing_without_end_is_given_up_at_the_most_pages() -> None:
    def endless(number: int, size: int) -> tuple[SkillPage, range]:
        return page(size), range(number * size, (number + 1) * size)

    plan, asked, _ = read(endless, max_pages=7)
    assert (len(asked), plan.problem) == (7, "the listing has more than 7 pages (ATOM_SAAS_MAX_PAGES)")


def test_a_listing_of_just_the_most_pages_is_whole() -> None:
    plan, asked, _ = read(Server(70), max_pages=7)
    assert (len(asked), plan.problem) == (7, "")


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
    size: int, asked_for: int, most: int, told: str, data: st.DataObject
) -> None:
    server = Server(size, most=most, totals=told != "none")

    def answer(number: int, page_size: int) -> tuple[SkillPage, range]:
        came, rows = server(number, page_size)
        return (page(came.rows, total=size), rows) if told == "total" else (came, rows)

    def pick(under_way: int) -> int:
        return data.draw(st.integers(0, under_way - 1)) if under_way > 1 else 0

    plan, asked, seen = read(answer, page_size=asked_for, max_pages=1000, pick=pick)
    assert (seen, plan.problem) == (set(range(size)), "")
    # One more than needed at most, where nothing but an empty page tells the end.
    width = min(asked_for, most)
    assert len(asked) <= max(1, -(-size // width)) + (told == "none")
