"""Reading the catalogue: pages, filters, search, ids of any characters, and the feed number of a list."""

import random
import re
import string
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest
from django.db import connection, connections, transaction
from django.test.utils import CaptureQueriesContext
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest_django.asserts import assertNumQueries

from marketplace_sync.api.filters import ORDERINGS
from marketplace_sync.api.snapshot import snapshot
from marketplace_sync.api.throttles import requests_of_actors
from marketplace_sync.governance.policy import Maturity
from marketplace_sync.models import Category, FeedChange, LeaseRow, Skill
from marketplace_sync.tests.support.api_actors import ApiClient, agent, put

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def client() -> ApiClient:
    requests_of_actors.clear()
    return agent(Maturity.STUDENT)


def ids(client: ApiClient, **parameters: Any) -> list[str]:
    """Return the ids of the listed skills, in order."""
    response = client.get("/api/skills/", parameters)
    assert response.status_code == 200, response.content
    return [skill["skill_id"] for skill in response.json()["results"]]


def test_a_list_leaves_the_code_out_and_the_detail_has_it(client: ApiClient) -> None:
    put("s1", category="automation", code="print()", metadata={"author": "Ada"}, extra={"x": 1})
    listed = client.get("/api/skills/").json()
    assert listed.keys() == {"count", "next", "previous", "results"}
    (row,) = listed["results"]
    whole = client.get("/api/skills/s1/").json()
    assert whole.pop("code") == "print()"
    assert whole == row
    assert (row["category"], row["metadata"], row["extra"]) == ("automation", {"author": "Ada"}, {"x": 1})


@pytest.mark.parametrize(
    "skill_id",
    [
        "a/b",
        "/a",
        "a/",
        "a//b",
        "a b",
        "a%2Fb",
        "a?b#c",
        "ä/ß",
        "a\nb",
        "..",
        "../../etc",
        "a+b",
        "replay",
        "100%",
        "%00",
    ],
)
def test_an_id_of_any_characters_is_found_percent_encoded(client: ApiClient, skill_id: str) -> None:
    put(skill_id)
    put("other", category=skill_id)
    response = client.get(f"/api/skills/{quote(skill_id, safe='')}/")
    assert (response.status_code, response.json().get("skill_id")) == (200, skill_id)
    response = client.get(f"/api/categories/{quote(skill_id, safe='')}/")
    assert (response.status_code, response.json().get("name")) == (200, skill_id)


@pytest.mark.parametrize("path", ["skills/none/", "skills/%00/", "categories/none/", "nothing/", "skills//", ""])
def test_missing_object_is_404_in_the_usual_format(client: ApiClient, path: str) -> None:
    response = client.get(f"/api/{path}")
    assert response.status_code == 404
    assert response.json()["code"] == "not_found"


def test_path_without_trailing_slash_redirects(client: ApiClient) -> None:
    response = client.get("/api/skills")
    assert (response.status_code, response["Location"]) == (301, "/api/skills/")


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ("min_rating=x", "min_rating"), ("min_rating=6", "min_rating"), ("min_rating=-1", "min_rating"),
        ("min_rating=NaN", "min_rating"), ("min_rating=Infinity", "min_rating"), ("ordering=code", "ordering"),
        ("ordering=name,", "ordering"), ("page_size=0", "page_size"), ("page_size=x", "page_size"),
        ("page_size=-1", "page_size"), ("page_size=", "page_size"), ("search=a%00b", "search"),
        ("category=%00", "category"), ("tag=%00", "tag"), ("search=" + "x" * 201, "search"), ("q=x", "q"),
        ("Search=x", "Search"), ("category=a&category=b", "category"), ("format=json", "format"),
    ],
)  # fmt: skip
def test_a_bad_or_unknown_parameter_is_400_and_named(client: ApiClient, parameters: str, field: str) -> None:
    response = client.get(f"/api/skills/?{parameters}")
    assert response.status_code == 400, response.content
    body = response.json()
    assert (body["code"], body["field"]) == ("invalid", field)
    assert field in body["detail"] and body["fields"][field]


def test_unknown_parameter_error_lists_the_known_ones(client: ApiClient) -> None:
    assert "min_rating" in client.get("/api/skills/?rating=5").json()["detail"]
    assert client.get("/api/skills/s1/?page=1").status_code == 400
    assert client.get("/api/categories/?search=x").status_code == 400


@pytest.mark.parametrize("page", ["0", "-1", "3", "x", "last", "1.0", "1_0", "١", "9" * 18, "9" * 5000])
def test_invalid_page_is_404(client: ApiClient, page: str) -> None:
    put("s1")
    put("s2")
    response = client.get("/api/skills/", {"page": page, "page_size": "1"})
    assert response.status_code == 404
    assert response.json()["code"] == "not_found"


@pytest.mark.parametrize("ordering", ORDERINGS)
def test_an_index_has_every_ordering(ordering: str) -> None:
    """A later migration that recreates the table must not lose one."""
    page = Skill.objects.order_by(*ORDERINGS[ordering]).values("pk")[200:210]
    with transaction.atomic():
        if connection.vendor == "postgresql":  # of an empty table it would sort nothing sooner than look into an index
            with connection.cursor() as cursor:
                cursor.execute("SET LOCAL enable_seqscan = off")
                cursor.execute("SET LOCAL enable_sort = off")
        plan = page.explain()
    assert "skill_by_" in plan
    assert not re.search("sort|temp b-tree", plan, re.IGNORECASE)


def test_postgresql_has_statistics_of_single_tags(postgres: None) -> None:
    """A list of the skills of a tag that is taken for frequent goes through all others."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO marketplace_sync_skill_words SELECT n, '', CASE WHEN n % 1000 < 100 "
            "THEN jsonb_build_array('tag-' || n, 'rare-' || n % 1000) ELSE jsonb_build_array('tag-' || n) END "
            "FROM generate_series(1, 30000) AS n"
        )
        cursor.execute("ANALYZE marketplace_sync_skill_words")
        for number in range(100):
            cursor.execute(
                "EXPLAIN SELECT FROM marketplace_sync_skill_words WHERE tags @> jsonb_build_array(%s)",
                [f"rare-{number}"],
            )
            expected = re.search(r"rows=(\d+)", cursor.fetchone()[0])
            assert expected is not None
            assert int(expected[1]) < 200, number
        transaction.set_rollback(True)  # nothing else empties that table


def test_pages_show_every_skill_once_in_every_ordering(client: ApiClient) -> None:
    rng = random.Random(7)
    for number in range(23):
        put(
            f"s{number:02}", name=rng.choice("ab"), average_rating=rng.choice([None, 1.0, 4.5]),
            rating_count=rng.choice([0, 3]), remote_updated_at=rng.choice([None, datetime(2026, 1, 1, tzinfo=UTC)]),
        )  # fmt: skip
    for ordering in ("name", "average_rating", "rating_count", "remote_updated_at"):
        seen: dict[str, list[str]] = {}
        for way in ("", "-"):
            url = f"/api/skills/?page_size=5&ordering={way}{ordering}"
            seen[way] = []
            while url:
                body = client.get(url).json()
                assert body["count"] == 23
                seen[way] += [skill["skill_id"] for skill in body["results"]]
                url = body["next"]
        assert len(set(seen[""])) == 23
        assert seen["-"] == seen[""][::-1]


def test_unrated_skills_come_last_in_descending_order(client: ApiClient) -> None:
    put("never", average_rating=None)
    put("good", average_rating=5.0)
    put("bad", average_rating=1.0)
    assert ids(client, ordering="-average_rating") == ["good", "bad", "never"]


def test_page_has_at_most_500_rows(client: ApiClient) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    Skill.objects.bulk_create(Skill(skill_id=str(n), name=str(n), synced_at=now) for n in range(501))
    assert len(ids(client)) == 50
    assert len(ids(client, page_size=501)) == 500
    assert len(ids(client, page_size=10**30)) == 500


def test_several_filters_must_all_match(client: ApiClient) -> None:
    put("yes", category="mail", tags=["email", "x"], average_rating=4.5, description="Sends notes.")
    put("other category", category="web", tags=["email"], average_rating=4.5, description="Sends notes.")
    put("other tag", category="mail", tags=["e-mail"], average_rating=4.5, description="Sends notes.")
    put("bad", category="mail", tags=["email"], average_rating=4.4, description="Sends notes.")
    put("unrated", category="mail", tags=["email"], description="Sends notes.")
    put("other words", category="mail", tags=["email"], average_rating=5.0)
    found = ids(client, category="mail", tag="email", min_rating="4.5", search="note")
    assert found == ["yes"]
    assert ids(client, tag="email", search="note", ordering="name") == ["bad", "other category", "unrated", "yes"]
    assert ids(client, tag="emai") == ids(client, category="none") == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("send", ["mail"]), ("SEND", ["mail"]), ("sen", ["mail"]), ("end", []), ("send mail", ["mail"]),
        ("mail SMTP", ["mail"]), ("send web", []), ("send_email", ["mail"]), ("smtp/imap", ["mail"]),
        ("e-mail", ["mail"]), ("größe", ["web"]), ("GRÖSSE", []), ("v2", ["web"]), ("scrape.py", ["web"]),
        ("zürich", ["web"]), ("u00fc", []),
        ("!!!", []), ("'\"*:&|()", []), ("send & | ! mail", ["mail"]), ("", ["mail", "web"]),
        ("AND", []), ("NEAR mail", []), ("mail OR web", []), ("example com", ["web"]),
    ],
)  # fmt: skip
def test_search_matches_beginnings_of_words(client: ApiClient, text: str, found: list[str]) -> None:
    put("mail", name="Mailer: send_email", description="E-mail by SMTP/IMAP, politely.", tags=["email"])
    put("web", name="Scrape.py v2", description="Maße und Größe, see https://example.com/x.", tags=["Zürich"])
    assert ids(client, search=text) == found
    body = client.get("/api/skills/", {"search": text}).json()
    assert body["count"] == len(found)


words = st.text(string.ascii_lowercase[:3] + "_/ .é'\"", max_size=12)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from("123"), words, words, st.lists(words, max_size=2)), max_size=8))
def test_search_index_follows_every_write(writes: list[tuple[str, str, str, list[str]]]) -> None:
    Skill.objects.all().delete()
    stored: dict[str, set[str]] = {}
    tags: dict[str, set[str]] = {}
    for skill_id, name, description, body in writes:
        if name.startswith("a"):
            Skill.objects.filter(skill_id=skill_id).delete()
            stored.pop(skill_id, None)
            tags.pop(skill_id, None)
            continue
        fields = {"name": name, "description": description, "tags": body, "synced_at": datetime(2026, 1, 1, tzinfo=UTC)}
        Skill.objects.update_or_create(skill_id=skill_id, defaults=fields)
        text = " ".join([name, description, *body])
        stored[skill_id] = {"".join(word) for word in split(text)}
        tags[skill_id] = set(body)
    for asked in ("a", "b", "ab", "c", "é", "ba"):
        found = set(Skill.objects.matching(asked).values_list("skill_id", flat=True))
        # A single character matches a whole word, more match the beginning of one.
        assert found == {
            key
            for key, those in stored.items()
            if any(word == asked or (len(asked) > 1 and word.startswith(asked)) for word in those)
        }
        assert Skill.objects.matching(asked).count() == len(found)
    for tag in {tag for those in tags.values() for tag in those}:
        found = set(Skill.objects.tagged(tag).values_list("skill_id", flat=True))
        assert found == {key for key, those in tags.items() if tag in those}
        assert Skill.objects.tagged(tag).count() == len(found)


def split(text: str) -> list[str]:
    for separator in "_/.'\"":
        text = text.replace(separator, " ")
    return text.split()


def test_a_description_of_a_mebibyte_can_be_written_and_found(client: ApiClient) -> None:
    put("long", name="Long", description=" ".join(f"word{n}" for n in range(100_000)))
    assert ids(client, search="word17") == ["long"]


def test_search_index_does_not_depend_on_rating_columns() -> None:
    put("s1", name="Mail")
    with CaptureQueriesContext(connection) as ran:
        Skill.objects.update(rating_count=7)
    assert len(ran) == 1
    assert Skill.objects.matching("mail").count() == 1


@pytest.mark.parametrize(("path", "queries"), [("/api/skills/", 4), ("/api/categories/", 4)])
def test_list_runs_the_same_number_of_queries_for_1_and_100_rows(client: ApiClient, path: str, queries: int) -> None:
    counts = []
    for rows in (range(1), range(1, 100)):
        for number in rows:
            put(f"s{number:03}", category=f"c{number:03}", tags=["x"])
        client.get(path)  # the key's use is noted once a minute
        with CaptureQueriesContext(connection) as ran:
            assert client.get(path, {"page_size": "500"}).status_code == 200
        counts.append(len([query for query in ran if query["sql"].startswith("SELECT")]))
    # One more: the key, with its user and agent.
    assert counts == [queries + 1, queries + 1]


def test_detail_runs_three_queries(client: ApiClient) -> None:
    put("s1", category="c")
    client.get("/api/skills/s1/")
    # The key, how fresh the mirror is, and the skill.
    with assertNumQueries(3):
        client.get("/api/skills/s1/")


def test_lists_carry_their_feed_number(client: ApiClient) -> None:
    assert client.get("/api/skills/")["X-Feed-Seq"] == "0"
    LeaseRow.objects.update_or_create(pk=1, defaults={"feed_seq": 41})
    for path in ("/api/skills/", "/api/categories/"):
        assert client.get(path)["X-Feed-Seq"] == "41"


def test_list_is_a_snapshot_and_blocks_no_writer() -> None:
    LeaseRow.objects.update_or_create(pk=1, defaults={"feed_seq": 1})
    put("before")
    other = connections.create_connection("default")
    try:
        with snapshot() as moment:
            assert moment.feed_seq == 1
            # Another connection writes and commits while the list is being read.
            with other.cursor() as cursor:
                cursor.execute("UPDATE marketplace_sync_lease SET feed_seq = 2 WHERE id = 1")
                cursor.execute("DELETE FROM marketplace_sync_skill")
            assert list(Skill.objects.values_list("skill_id", flat=True)) == ["before"]
        with snapshot() as moment:
            assert (moment.feed_seq, Skill.objects.count()) == (2, 0)
    finally:
        other.close()


def test_snapshot_restores_the_transaction_mode() -> None:
    with snapshot():
        pass
    if connection.vendor == "sqlite":
        assert connection.transaction_mode == "IMMEDIATE"  # type: ignore[attr-defined]
    put("s1")
    assert Category.objects.count() == 0


def feed(*numbers: int, newest: int) -> None:
    LeaseRow.objects.update_or_create(pk=1, defaults={"feed_seq": newest})
    at = datetime(2026, 1, 1, tzinfo=UTC)
    FeedChange.objects.bulk_create(
        FeedChange(seq=n, kind="skill_updated", key=f"s{n}", at=at, source="stream", data={"name": "x"})
        for n in numbers
    )


def test_feed_is_read_to_its_end_page_by_page(client: ApiClient) -> None:
    feed(*range(1, 8), newest=7)
    seen, after = [], 0
    while (body := client.get("/api/changes/", {"after": after, "limit": 3}).json())["results"]:
        seen += [change["seq"] for change in body["results"]]
        after = body["next_after"]
    assert (seen, after, body) == ([*range(1, 8)], 7, {"results": [], "next_after": 7})
    first = client.get("/api/changes/?limit=1").json()["results"][0]
    assert first == {
        "seq": 1, "kind": "skill_updated", "key": "s1", "at": "2026-01-01T00:00:00Z", "source": "stream",
        "data": {"name": "x"},
    }  # fmt: skip


def test_feed_from_a_pruned_or_future_number_is_410(client: ApiClient) -> None:
    feed(5, 6, newest=6)
    codes = {after: client.get("/api/changes/", {"after": after}).status_code for after in (0, 3, 4, 5, 6, 7)}
    assert codes == {0: 410, 3: 410, 4: 200, 5: 200, 6: 200, 7: 410}
    FeedChange.objects.all().delete()
    assert client.get("/api/changes/?after=5").status_code == 410
    assert client.get("/api/changes/?after=6").json() == {"results": [], "next_after": 6}


@pytest.mark.parametrize("parameters", ["after=-1", "after=x", "limit=0", "limit=x", "since=1", "after=" + "9" * 30])
def test_invalid_parameter_of_the_feed_is_400(client: ApiClient, parameters: str) -> None:
    assert client.get(f"/api/changes/?{parameters}").status_code == 400
