"""Minute figures: their sum equals the totals after any restart; lags are measured by the marketplace's clock."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from django.db.models import Sum
from hypothesis import given, settings
from hypothesis import strategies as st

from marketplace_sync.daemon.figures import Figures
from marketplace_sync.daemon.observer import Observers
from marketplace_sync.daemon.writer import Committed
from marketplace_sync.engine.latency import bucket_of, quantile
from marketplace_sync.mirror import lease as leases
from marketplace_sync.mirror.apply import BatchResult
from marketplace_sync.mirror.arrived import Arrived, Effect
from marketplace_sync.mirror.clock import database_now
from marketplace_sync.mirror.figures import KEPT_MINUTES, add_to_minute, count_minute, lags_of, minute_of
from marketplace_sync.mirror.lease import Lease, LeaseLostError, acquire
from marketplace_sync.mirror.retention import forget_minutes
from marketplace_sync.mirror.state import TOTALS, save_state, state_row
from marketplace_sync.models import FeedChange, LeaseRow, MinuteFigures, WebSocketState
from marketplace_sync.protocol.events import Change, RatingChanged, SkillDeleted, SkillRecord
from marketplace_sync.protocol.stamps import Stamp, stamp_of
from marketplace_sync.tests.support.harness import marketplace, mirror
from marketplace_sync.tests.support.live_feed import ask

NOW = datetime(2026, 1, 15, 10, 30, 20, tzinfo=UTC)
HOUR = timedelta(hours=1)


def all_minutes() -> Counter[str]:
    found = MinuteFigures.objects.aggregate(**{name: Sum(name, default=0) for name in TOTALS})
    return Counter({name: found[name] for name in TOTALS})


def all_totals() -> Counter[str]:
    return Counter({name: getattr(state_row(), name) for name in TOTALS})


@pytest.fixture
def lease(db: None) -> Lease:
    taken = acquire("test:1")
    WebSocketState.objects.create(pk=1)
    return taken


@pytest.mark.django_db
@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(
            st.dictionaries(st.sampled_from(TOTALS), st.integers(0, 50)),
            st.dictionaries(st.integers(0, 192), st.integers(1, 9), max_size=4),
            st.sampled_from(["live", "reconnecting"]),
        ),
        max_size=8,
    )
)
def test_the_sum_of_all_minutes_equals_the_totals(writes: list[tuple[dict[str, int], dict[int, int], str]]) -> None:
    for model in (MinuteFigures, WebSocketState, LeaseRow):
        model.objects.all().delete()
    taken = acquire("test:1")
    WebSocketState.objects.create(pk=1)
    totals, lags = Counter({name: 0 for name in TOTALS}), Counter[int]()
    for grown, late, state in writes:
        totals.update(grown)
        if any(grown.values()):
            lags.update(late)
        for _ in range(2):  # the answer of the first commit may have been lost
            save_state(taken, {"state": state}, totals, late)
        assert all_minutes() == all_totals() == totals
    assert lags_of(*MinuteFigures.objects.all()) == lags


@pytest.mark.django_db
@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 9), st.lists(st.integers(0, 192), max_size=5))))
def test_a_minute_counts_its_messages_and_lags(adds: list[tuple[int, int, list[int]]]) -> None:
    MinuteFigures.objects.all().delete()
    for second, count, late in adds:
        add_to_minute(NOW + timedelta(seconds=second), {"received": count}, Counter(late))
    for row in MinuteFigures.objects.all():
        own = [(count, late) for second, count, late in adds if minute_of(NOW + timedelta(seconds=second)) == row.at]
        assert row.received == sum(count for count, _ in own)
        counted = Counter(bucket for _, late in own for bucket in late)
        assert lags_of(row) == counted
        assert (row.lag_p50, row.lag_p99) == (quantile(counted, 0.5), quantile(counted, 0.99))


@pytest.mark.django_db
def test_a_minute_in_which_nothing_happens_has_a_row_with_the_sizes(lease: Lease) -> None:
    save_state(lease, {"state": "live"}, {})
    assert not MinuteFigures.objects.exists()
    count_minute(lease)
    row = MinuteFigures.objects.get()
    assert (row.received, row.lag_p50, row.skills, row.categories, row.open_dead_letters) == (0, None, 0, 0, 0)
    in_sync_at = state_row().in_sync_at
    assert in_sync_at is not None and (database_now() - in_sync_at).total_seconds() < 30


@pytest.mark.django_db
def test_an_owner_without_the_lease_adds_no_figures(lease: Lease, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "LEASE_SECONDS", -1.0)
    acquire("other:1")
    with pytest.raises(LeaseLostError):
        save_state(lease, {"state": "live"}, {"received": 5}, {3: 5})
    with pytest.raises(LeaseLostError):
        count_minute(lease)
    assert not MinuteFigures.objects.exists()


@pytest.mark.django_db
def test_minute_figures_are_kept_for_a_day(lease: Lease) -> None:
    now = minute_of(database_now())
    ages = (0, 1, KEPT_MINUTES - 1, KEPT_MINUTES + 2, 3 * KEPT_MINUTES)
    MinuteFigures.objects.bulk_create([MinuteFigures(at=now - timedelta(minutes=age)) for age in ages])
    assert forget_minutes(lease) == 2
    assert MinuteFigures.objects.count() == 3


def committed(*changes: tuple[Change, Effect]) -> Committed:
    items = [Arrived(event, number, FeedChange.Source.STREAM) for number, (event, _) in enumerate(changes)]
    effects = [effect for _, effect in changes]
    return Committed(items, effects, BatchResult(effects, 0))


def late_by(seconds: float, offset: timedelta = timedelta()) -> SkillRecord:
    """Return a skill changed so long ago, by a server whose clock is `offset` ahead of ours."""
    return SkillRecord("s", {}, {}, stamp_of(NOW - timedelta(seconds=seconds) + offset))


@pytest.mark.parametrize(
    ("off", "known", "seconds"),
    [
        (timedelta(0), timedelta(0), 0.2),
        # The difference is within the precision of `Date` and the delay: clocks that agree are not corrected.
        (timedelta(0), timedelta(seconds=-0.9), 0.2),
        (HOUR, HOUR - timedelta(seconds=0.5), 0.2),
        (-HOUR, -HOUR - timedelta(seconds=0.5), 0.2),
        # The offset is unknown: a clock behind shows as lag, a clock ahead as no lag.
        (-HOUR, timedelta(0), 3600.2),
        (HOUR, timedelta(0), 0.0),
    ],
)
def test_the_lag_is_measured_by_the_marketplaces_clock(off: timedelta, known: timedelta, seconds: float) -> None:
    figures = Figures(Observers(), lambda: NOW)
    figures.stream_opened(known)
    figures.committed(committed((late_by(0.2, off), Effect.UPDATED)))
    assert figures.take() == {bucket_of(seconds): 1}
    assert figures.take() == {}


def test_the_lag_is_measured_only_of_recent_changes_with_a_time() -> None:
    figures = Figures(Observers(), lambda: NOW)
    figures.committed(
        committed(
            (late_by(1), Effect.STALE),
            (late_by(1), Effect.UNCHANGED),
            (RatingChanged("s", 5, {}, None), Effect.UPDATED),
            (late_by(86_401), Effect.CREATED),
            (SkillDeleted("s", Stamp("2001-01-01T00:00:00")), Effect.REMOVED),
        )
    )
    assert figures.take() == {}
    for effect in (Effect.CREATED, Effect.UPDATED, Effect.REMOVED):
        figures.committed(committed((late_by(1), effect)))
    assert figures.take() == {bucket_of(1): 3}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("skew", [timedelta(0), HOUR, -HOUR], ids=["right clock", "an hour ahead", "an hour behind"])
async def test_a_restart_continues_the_minute(skew: timedelta) -> None:
    async with marketplace() as server:
        server.clock_skew = skew
        for number in range(2):
            async with mirror(server) as running:
                await running.until_state("live")
                for vote in range(3):
                    server.market.rate(f"skill-{number:05}", vote + 1)
                server.market.put_skill({"skill_id": "skill-00009", "name": f"Renamed {number}"})
                await running.until_db(lambda number=number: state_row().received == 4 * (number + 1), "all arrived")
            totals = await ask(all_totals)
            assert totals["received"] == 4 * (number + 1)
            assert await ask(all_minutes) == totals
        rows = await ask(lambda: list(MinuteFigures.objects.all()))
    # Sizes are counted at each start and in each minute, except in one that began as the last daemon stopped.
    counted = [row.skills for row in rows]
    assert None not in counted[:-1]
    assert [skills for skills in counted if skills is not None][-1] == 25
    lags = lags_of(*rows)
    assert sum(lags.values()) == totals["applied"]
    # The lag includes the load of this machine, but not the hour.
    assert (quantile(lags, 1.0) or 0) < 600
