"""Cursor paging: a list read while it changes, and a client that continues with the change feed."""

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.test import override_settings
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from marketplace_sync.api import throttles
from marketplace_sync.governance.policy import Maturity
from marketplace_sync.governance.sliding_window import SlidingWindow
from marketplace_sync.models import AuditRow, Category, DeadLetter, FeedChange, LeaseRow, Skill, Tombstone
from marketplace_sync.tests.support import live_feed
from marketplace_sync.tests.support.api_actors import ApiClient, agent, put
from marketplace_sync.tests.support.live_feed import Pen, category, change, new_pen, rate, remove

pytestmark = pytest.mark.django_db(transaction=True)

State = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> ApiClient:
    monkeypatch.setattr(throttles, "requests_of_actors", SlidingWindow(10**9, 1.0))
    return agent(Maturity.AUTONOMOUS)


def read(client: ApiClient, url: str, between: Callable[[], None] = lambda: None) -> tuple[list[dict[str, Any]], int]:
    """Read every page from this one on; the rows, and the feed number of the first page."""
    found: list[dict[str, Any]] = []
    first = None
    while url:
        answer = client.get(url)
        assert answer.status_code == 200, answer.content
        first = int(answer["X-Feed-Seq"]) if first is None else first
        body = answer.json()
        assert body.keys() == {"count", "next", "previous", "results"} and body["previous"] is None
        found += body["results"]
        url = body["next"]
        between()
    assert first is not None
    return found, first


def cursor_of(url: str) -> str:
    return parse_qs(urlsplit(url).query)["cursor"][0]


def test_cursor_lists_every_row_once_for_any_page_size(client: ApiClient) -> None:
    for number in (3, 1, 7, 5, 2, 9, 4):
        put(f"s{number}", name=f"name {10 - number}")
    for size in (1, 2, 3, 6, 7, 8, 500):
        rows, _ = read(client, f"/api/skills/?cursor=&page_size={size}")
        assert [row["skill_id"] for row in rows] == ["s3", "s1", "s7", "s5", "s2", "s9", "s4"]
    assert read(client, "/api/skills/?cursor=&category=none") == ([], 0)
    whole = client.get("/api/skills/?cursor=&page_size=2").json()
    assert whole["count"] == 7
    assert whole["results"][0].keys() == client.get("/api/skills/").json()["results"][0].keys()


def test_a_cursor_keeps_the_filters_and_may_change_the_page_size(client: ApiClient) -> None:
    for number in range(9):
        put(f"s{number}", "mail" if number % 2 else "web", name="Send it", tags=["x"], average_rating=number / 2)
    body = client.get("/api/skills/?category=mail&min_rating=1&tag=x&search=send&cursor=&page_size=1").json()
    assert (body["count"], [row["skill_id"] for row in body["results"]]) == (3, ["s3"])
    rows, _ = read(client, body["next"].replace("page_size=1", "page_size=400"))
    assert [row["skill_id"] for row in rows] == ["s5", "s7"]


@pytest.mark.parametrize("other", ["page=1", "page=2", "ordering=name", "ordering=-remote_updated_at"])
def test_cursor_cannot_be_combined_with_page_or_ordering(client: ApiClient, other: str) -> None:
    answer = client.get(f"/api/skills/?cursor=&{other}")
    assert (answer.status_code, answer.json()["field"]) == (400, "cursor")
    assert f"leave out `{other.partition('=')[0]}`" in answer.json()["detail"]


def test_foreign_or_altered_cursor_is_refused_with_advice(client: ApiClient) -> None:
    for number in range(4):
        put(f"s{number}", category=f"c{number}", name="Send it")
    url = client.get("/api/skills/?cursor=&category=c1&page_size=1&min_rating=0").json()["next"]
    assert url is None
    good = cursor_of(client.get("/api/skills/?cursor=&page_size=1").json()["next"])
    filtered = cursor_of(client.get("/api/skills/?cursor=&page_size=1&search=send").json()["next"])
    of_categories = cursor_of(client.get("/api/categories/?cursor=&page_size=1").json()["next"])
    assert client.get(f"/api/skills/?cursor={good}").status_code == 200
    head, _, tail = good.partition(".")
    foreign = [
        filtered, of_categories, "1", "null", "[]", "x" * 10_000, good + "x", good[:-1], f"{head}.", f".{tail}", tail,
        f"Mg.{tail}", "%00", "%ff%fe", "٣", "%20", good.upper(), f"{good}&category=c1", f"{good}&search=send",
    ]  # fmt: skip
    for wrong in foreign:
        answer = client.get(f"/api/skills/?cursor={wrong}")
        assert (answer.status_code, answer.json()["field"]) == (400, "cursor"), wrong
        assert "begin again with an empty cursor" in answer.json()["detail"]
    with override_settings(SECRET_KEY="of-another-server-0123456789-0123456789-0123456789-abcdef"):
        assert client.get(f"/api/skills/?cursor={good}").status_code == 400


def test_every_list_accepts_a_cursor(client: ApiClient) -> None:
    for _ in range(3):
        client.ask("/api/admin/sync/trigger/")
    now = AuditRow.objects.latest("id").at
    for digest in "abc":
        DeadLetter.objects.create(
            source="stream", code="missing", reason="required", head=b"{", size=1, digest=digest, first_seen_at=now,
            last_seen_at=now,
        )  # fmt: skip
    for path in ("audit", "dead-letters"):
        url, ids = f"/api/admin/{path}/?cursor=&page_size=2", []
        while url:
            body = client.get(url).json()
            ids += [row["id"] for row in body["results"]]
            url = body["next"]
        assert len(ids) >= 3 and ids == sorted(set(ids))


# A client that lists the catalogue, and then applies each change of the feed.

SHOWN = ("name", "version", "tags", "category", "average_rating", "rating_count", "remote_updated_at", "rating_at")
OF_CATEGORY = ("description", "remote_updated_at")


def begin(client: ApiClient, size: int, between: Callable[[], None], pages: str = "cursor=") -> tuple[State, int]:
    """List skills and categories as docs/feed.md has it; the copy and the number to follow from."""
    skills, first = read(client, f"/api/skills/?{pages}&page_size={size}", between)
    categories, _ = read(client, f"/api/categories/?{pages}&page_size={size}", between)
    copy: State = {("skill", row["skill_id"]): row for row in skills}
    return copy | {("category", row["name"]): row for row in categories}, first


def follow(client: ApiClient, copy: State, after: int) -> None:
    while (body := client.get(f"/api/changes/?after={after}&limit=7").json())["results"]:
        for entry in body["results"]:
            kind, _, what = entry["kind"].partition("_")
            place = ("category" if kind == "category" else "skill", entry["key"])
            if what == "deleted":
                copy.pop(place, None)
            elif what == "created":
                copy[place] = entry["data"]
            elif place in copy:  # else it is deleted later in the feed
                copy[place] = copy[place] | entry["data"]
        after = body["next_after"]


def shown(state: State) -> State:
    return {
        place: {name: record[name] for name in (SHOWN if place[0] == "skill" else OF_CATEGORY)}
        for place, record in state.items()
    }


def mirror_now(client: ApiClient) -> State:
    return begin(client, 500, lambda: None)[0]


# Each change picks one of 16 skills and does this to it; creating and removing come often, so that lists move.
EDITS: tuple[Callable[[str, int], Callable[..., Any]], ...] = (
    lambda key, n: live_feed.put(key, category=f"c{n % 5}", tags=["x"] * (n % 2), version=str(n)),
    lambda key, n: live_feed.put(key, category=None, version=str(n)),
    lambda key, _: remove(key),
    lambda key, _: remove(key),
    lambda key, n: rate(key, 1 + n % 5, n),
    lambda key, n: change(key, category=f"c{n % 7}", name=f"{n}"),
    lambda key, n: category(f"c{n % 7}", description=str(n)),
)
edits = st.tuples(st.integers(0, len(EDITS) - 1), st.integers(0, 15), st.integers(1, 99))


def write(pen: Pen, edit: tuple[int, int, int]) -> None:
    what, target, number = edit
    # Ids in another order than they are stored in, as the marketplace's are.
    pen.write(EDITS[what](f"s{target * 7 % 16:02}", number))


def begun_with(before: list[tuple[int, int, int]]) -> Pen:
    """Return an empty mirror after these edits."""
    for model in (Skill, Category, Tombstone, FeedChange, LeaseRow):
        model.objects.all().delete()
    pen = new_pen()
    for edit in before:
        write(pen, edit)
    return pen


# The client alone is kept from example to example.
RANDOM = settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])


@RANDOM
@given(
    before=st.lists(edits, min_size=10, max_size=30),
    meanwhile=st.lists(st.lists(edits, max_size=5), max_size=12),
    size=st.integers(1, 5),
)
# By page number: two skills are removed behind the reader, and the two after its place are never listed.
@example(
    before=[(0, target, 1) for target in range(16)],
    meanwhile=[[], [(2, 0, 1), (2, 7, 1)], [(2, 14, 1)]],
    size=5,
)
def test_client_that_lists_by_cursor_and_reads_the_feed_equals_the_mirror(
    client: ApiClient, before: list[Any], meanwhile: list[list[Any]], size: int
) -> None:
    pen = begun_with(before)
    ahead = iter(meanwhile)

    def between() -> None:
        for edit in next(ahead, ()):
            write(pen, edit)

    copy, after = begin(client, size, between)
    follow(client, copy, after)
    assert shown(copy) == shown(mirror_now(client))


FILTERS: dict[str, Callable[[Skill], bool]] = {
    "": lambda row: True,
    "category=c1": lambda row: row.category is not None and row.category.name == "c1",
    "tag=x": lambda row: "x" in row.tags,
    "min_rating=3": lambda row: row.average_rating is not None and row.average_rating >= 3,
    "search=s0": lambda row: row.name.startswith("s0"),
    "search=s0&tag=x": lambda row: row.name.startswith("s0") and "x" in row.tags,
}


@RANDOM
@given(
    before=st.lists(edits, min_size=10, max_size=30),
    meanwhile=st.lists(st.lists(edits, max_size=5), max_size=12),
    size=st.integers(1, 5),
    asked=st.sampled_from(list(FILTERS)),
)
@example(
    before=[(0, target, 1) for target in range(16)],
    meanwhile=[[], [(2, 0, 1), (2, 7, 1)], [(2, 14, 1)]],
    size=4,
    asked="category=c1",
)
def test_a_skill_that_exists_and_matches_throughout_is_listed_once(
    client: ApiClient, before: list[Any], meanwhile: list[list[Any]], size: int, asked: str
) -> None:
    pen = begun_with(before)

    def matching() -> set[tuple[int, str]]:
        rows = Skill.objects.select_related("category")
        return {(row.pk, row.skill_id) for row in rows if FILTERS[asked](row)}

    throughout = matching()
    ahead = iter(meanwhile)

    def between() -> None:
        nonlocal throughout
        for edit in next(ahead, ()):
            write(pen, edit)
            throughout &= matching()

    rows, _ = read(client, f"/api/skills/?cursor=&page_size={size}&{asked}", between)
    listed = [row["skill_id"] for row in rows]
    for _, skill_id in throughout:
        assert listed.count(skill_id) == 1, (skill_id, listed)
