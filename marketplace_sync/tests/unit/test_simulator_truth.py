"""The simulated marketplace without sockets: its truth, its limits, where its records come from."""

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from marketplace_sync.simulator import FaultSet, Marketplace, UnknownFaultError
from marketplace_sync.simulator.budget import RequestWindow
from marketplace_sync.simulator.catalog import generate, load_skills
from marketplace_sync.simulator.churn import Churn
from marketplace_sync.simulator.listing import matching
from marketplace_sync.simulator.marketplace import AlreadyRatedError, Message
from marketplace_sync.simulator.pace import Pace
from marketplace_sync.simulator.replay import replay
from marketplace_sync.simulator.wire import SimulatorError, encode, read_time

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def announced(market: Marketplace) -> list[Message]:
    messages: list[Message] = []
    market.listeners.append(lambda message, raw: messages.append(message))
    return messages


async def no_wait() -> None:
    return


def test_times_of_a_skill_grow_while_the_clock_stands_still():
    market = Marketplace()
    market.now = lambda: NOON
    messages = announced(market)
    market.put_skill({"skill_id": "s1", "name": "One"})
    market.put_skill({"skill_id": "s1", "name": "Two"})
    market.rate("s1", 5)
    market.delete_skill("s1")
    market.put_skill({"skill_id": "s1", "name": "Three"})
    times = [message["data"].get("updated_at") or message["data"]["deleted_at"] for message in messages]
    assert times == sorted(set(times))
    assert len(times) == 5


def test_a_change_is_newer_than_a_record_dated_ahead_of_the_clock():
    market = Marketplace([{"skill_id": "s1", "name": "One", "updated_at": "2027-01-01T00:00:00.123456789Z"}])
    market.now = lambda: NOON
    assert market.put_skill({"skill_id": "s1", "name": "Two"})["updated_at"] == "2027-01-01T00:00:00.123457Z"


def test_partial_update_keeps_the_other_fields_and_announces_only_its_own():
    market = Marketplace([{"skill_id": "s1", "name": "One", "code": "print()", "tags": ["a"]}])
    messages = announced(market)
    record = market.put_skill({"skill_id": "s1", "name": "Two"})
    assert (record["name"], record["code"], record["tags"]) == ("Two", "print()", ["a"])
    assert messages[0]["data"].keys() == {"skill_id", "name", "updated_at"}


def test_unannounced_change_is_in_the_catalogue_only():
    market = Marketplace([{"skill_id": "s1", "name": "One"}])
    messages = announced(market)
    market.put_skill({"skill_id": "s2", "name": "Two"}, announce=False)
    market.delete_skill("s1", announce=False)
    market.put_category({"name": "c"}, announce=False)
    assert (market.skills.keys(), market.categories.keys(), messages) == ({"s2"}, {"c"}, [])


def test_a_record_put_unstamped_keeps_its_times():
    market = Marketplace()
    market.put_skill({"skill_id": "s1", "name": "One", "updated_at": "2020-01-01T00:00:00Z"}, stamp=False)
    assert market.skills["s1"]["updated_at"] == "2020-01-01T00:00:00Z"


def test_snapshot_does_not_change_with_the_catalogue():
    market = Marketplace([{"skill_id": "s1", "name": "One", "tags": ["a"]}])
    before = market.snapshot()
    market.skills["s1"]["tags"].append("b")
    market.put_category({"name": "c"})
    assert before.skills["s1"]["tags"] == ["a"]
    assert before.categories == {}


def test_rating_changes_the_figures_and_not_the_skills_time():
    start = {"skill_id": "s1", "name": "One", "average_rating": 4.0, "rating_count": 3, "updated_at": "2026-01-01"}
    market = Marketplace([start])
    messages = announced(market)
    market.rate("s1", 2)
    market.rate("s1", 5, with_average=False)
    assert market.skills["s1"] == {**start, "average_rating": 3.8, "rating_count": 5}
    assert [message["data"].get("average_rating") for message in messages] == [3.5, None]


def test_a_second_vote_of_a_person_wins_only_when_it_is_newer():
    market = Marketplace([{"skill_id": "s1", "name": "One"}])
    market.vote("s1", "ann", 2, "", NOON)
    for earlier in (None, NOON, NOON - timedelta(seconds=1)):
        with pytest.raises(AlreadyRatedError):
            market.vote("s1", "ann", 5, "", earlier)
    market.vote("s1", "ann", 5, "", NOON + timedelta(seconds=1))
    assert (market.skills["s1"]["average_rating"], market.skills["s1"]["rating_count"]) == (5, 1)


def test_new_skill_is_first_in_the_listing():
    market = Marketplace([{"skill_id": "s1", "name": "One"}])
    market.put_skill({"skill_id": "s2", "name": "Two"})
    assert [skill["skill_id"] for skill in matching(market.skills, "", "")] == ["s2", "s1"]


def test_window_admits_its_limit_in_any_60_seconds_and_returns_the_wait():
    window = RequestWindow(2)
    assert [window.admit(0.0), window.admit(50.0)] == [None, None]
    assert window.admit(59.0) == pytest.approx(1.0)
    assert window.admit(60.0) is None
    assert window.admit(61.0) == pytest.approx(49.0)
    assert [RequestWindow(0).admit(0.0) for _ in range(1_000)] == [None] * 1_000


def test_unknown_fault_error_names_the_nearest_and_all():
    with pytest.raises(UnknownFaultError, match=r"no fault 'mut'\. Did you mean 'mute'\?.*flood"):
        FaultSet().add("mut")


def test_fault_obeys_times_every_and_match():
    faults = FaultSet()
    faults.add("http-500", times=2, every=2, match="page=2")
    hits = [faults.take("http-500", subject) is not None for subject in ["?page=1", *["?page=2"] * 6]]
    assert hits == [False, False, True, False, True, False, False]
    assert "http-500" not in faults
    with pytest.raises(ValueError, match="no setting speed"):
        faults.add("mute", speed=3)


def test_generated_skills_are_the_same_for_a_seed_and_newer_after_a_restart():
    first, again, other = generate(50, 1, NOON), generate(50, 1, NOON), generate(50, 2, NOON)
    assert first == again
    assert {skill["skill_id"] for skill in first.skills}.isdisjoint(skill["skill_id"] for skill in other.skills)
    assert len({skill["skill_id"] for skill in [*first.skills, *first.reserve]}) == 70
    assert all(NOON - timedelta(seconds=1) < read_time(skill["updated_at"]) < NOON for skill in first.skills)
    assert all(NOON - timedelta(hours=1) <= read_time(skill["created_at"]) < NOON for skill in first.skills)
    sizes = sorted(len(encode(skill)) for skill in first.skills)
    assert sizes[5] > 1_000 and sizes[-5] < 2_500
    assert sum(category["skill_count"] for category in first.categories) == 50


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ('{"skill_id": "s1"}\n{"skill_id"', r"skills\.jsonl, line 2: not JSON"),
        ('{"skill_id": "s1"}\n\n[]', r"line 3: not a JSON object"),
        ('{"name": "x"}', r"line 1: skill_id is missing"),
        ('{"skill_id": "s1"}\n{"skill_id": "s1"}', r"line 2: skill_id 's1' is in an earlier line too"),
        ('{"skill_id": "s1", "updated_at": "soon"}', r"line 1: updated_at is not an ISO 8601 time"),
    ],
)
def test_a_bad_catalogue_names_file_and_line(tmp_path: Path, lines: str, complaint: str):
    path = tmp_path / "skills.jsonl"
    path.write_text(lines)
    with pytest.raises(SimulatorError, match=complaint):
        load_skills(path)


@pytest.mark.parametrize("name", ["skills.jsonl", "skills.jsonl.gz"])
def test_missing_catalogue_file_is_named(tmp_path: Path, name: str):
    with pytest.raises(SimulatorError, match=rf"{name} can't be read: No such file"):
        load_skills(tmp_path / name)


def test_random_changes_are_of_every_kind_and_use_only_seeded_ids():
    catalog = generate(40, 3, NOON)
    market = Marketplace(catalog.skills, catalog.categories)
    messages = announced(market)
    churn = Churn(market, catalog.reserve, seed=3)
    known = {skill["skill_id"] for skill in [*catalog.skills, *catalog.reserve]}
    oracle = market.snapshot().skills
    for _ in range(2_000):
        churn.step()
    kinds = Counter(message["type"] for message in messages)
    assert kinds.keys() == {"skill_update", "rating_update", "skill_delete", "category_update"}
    assert sum(kinds.values()) > 1_950
    assert market.skills.keys() <= known
    assert 20 <= len(market.skills) <= 60
    for message in messages:
        data = message["data"]
        match message["type"]:
            case "skill_update":
                oracle[data["skill_id"]] = oracle.get(data["skill_id"], {}) | data
            case "skill_delete":
                del oracle[data["skill_id"]]
            case "rating_update" if "average_rating" in data:
                figures = {name: data[name] for name in ("average_rating", "rating_count")}
                oracle[data["skill_id"]] |= figures
    for skills in (oracle, market.skills):
        for skill in skills.values():
            skill.pop("average_rating", None)
            skill.pop("rating_count", None)
    assert oracle == market.skills


@pytest.mark.parametrize("rate", [90, 1_000])
async def test_pace_is_steady_and_catches_up_without_a_burst(rate: int):
    now = 0.0
    rng = random.Random(1)

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds + rng.uniform(0, 0.002)

    pace = Pace(rate, clock=lambda: now, sleep=sleep)
    turns: list[float] = []
    for number in range(10 * rate):
        if number == 5 * rate:
            now += 3.0
        await pace.turn()
        turns.append(now)
    assert turns[5 * rate - 1] == pytest.approx(5, rel=0.02)
    assert turns[-1] == pytest.approx(13, rel=0.02)
    # Never more than a second's worth and the tenth of a second that may be caught up, in any second.
    assert max(sum(start <= turn < start + 1 for turn in turns) for start in range(13)) <= 1.11 * rate + 1


async def test_replay_ends_with_its_ids_and_creates_the_categories_it_names(tmp_path: Path):
    trace = tmp_path / "trace.jsonl"
    at = {"updated_at": "2026-01-01T00:00:00Z"}
    lines = [
        {"type": "skill_update", "data": {"skill_id": "s1", "name": "One", "category": "new", **at}},
        {"type": "skill_update", "data": {"skill_id": "s2", "name": "Two", "category": "listed", **at}},
        {"type": "skill_update", "data": {"skill_id": "s1", "name": "Uno"}},
        {"type": "skill_delete", "data": {"skill_id": "s2", "deleted_at": "2026-01-02T00:00:00Z"}},
    ]
    trace.write_bytes(b"\n".join(map(encode, lines)))
    market = Marketplace(categories=[{"name": "listed", "skill_count": 7}])
    messages = announced(market)
    played = await replay(market, trace, 0, no_wait)
    assert (played.messages, played.categories) == (4, 1)
    assert market.skills == {"s1": {"skill_id": "s1", "name": "Uno", "category": "new", **at}}
    assert market.categories["listed"] == {"name": "listed", "skill_count": 7}
    assert market.categories["new"]["created_at"] == at["updated_at"]
    assert [message["type"] for message in messages[:2]] == ["category_update", "skill_update"]
    assert messages[1:] == lines


@pytest.mark.parametrize("line", [b'{"type": "skill_update", "data": {}}', b'{"type": "ping"}', b"nonsense"])
async def test_bad_line_of_a_recording_is_named(tmp_path: Path, line: bytes):
    trace = tmp_path / "trace.jsonl"
    trace.write_bytes(b'{"type":"skill_delete","data":{"skill_id":"s1"}}\n' + line)
    with pytest.raises(SimulatorError, match=r"trace\.jsonl, line 2: not"):
        await replay(Marketplace(), trace, 0, no_wait)
