"""Find stored rows that contradict themselves: something other than the writer has changed them (law 16).

The writer stores a skill's fingerprint with what it is made of, and each of the marketplace's times twice, as a column
and at full precision. A row where two of these disagree was changed by a person with SQL, a bug or a bad disk. Its own
times then prove nothing, so the marketplace's record replaces it. The converse is not true: whether a sound row is
right is decided by comparing its columns with the record.
"""

from collections.abc import Collection, Mapping

from marketplace_sync.engine.merge import Slot, StoredCategory, StoredSkill, arrival_number, fingerprint_of
from marketplace_sync.mirror.dialects import UnreadableRowsError, dialect
from marketplace_sync.mirror.load import UNREADABLE, load_by_column
from marketplace_sync.mirror.values import stored_stamp
from marketplace_sync.models import Category, LeaseRow, Skill
from marketplace_sync.protocol.stamps import Stamp, to_microseconds

_SKILL, _CATEGORY = Skill._meta.db_table, Category._meta.db_table


def unsound_skills(stored: Mapping[str, Slot]) -> dict[str, list[str]]:
    """Return the contradictory columns of each skill of `stored` that is not as the writer wrote it."""
    skills = {skill_id: slot for skill_id, slot in stored.items() if isinstance(slot, StoredSkill)}
    if not skills:
        return {}
    latest = latest_arrival()
    shown = _times(_SKILL, "skill_id", skills, ("remote_updated_at", "rating_at"))
    unsound: dict[str, list[str]] = {}
    for skill_id, skill in skills.items():
        if skill.known_fingerprint == UNREADABLE:
            unsound[skill_id] = load_by_column(skill_id)[1] or ["fingerprint"]
            continue
        names = []
        updated_at, rating_at = shown.get(skill_id, (None, None))
        if updated_at != _shown(skill.updated):
            names += ["remote_updated_at", "updated_stamp"]
        if rating_at != _shown(skill.rated):
            names += ["rating_at", "rating_stamp"]
        if skill.arrival >= latest:
            names.append("arrival")
        if skill.rating_arrival >= latest:
            names.append("rating_arrival")
        if skill.known_fingerprint != fingerprint_of(skill.fields, skill.extra, skill.updated):
            names.append("fingerprint")
        if names:
            unsound[skill_id] = names
    return unsound


def unsound_categories(stored: Mapping[str, StoredCategory]) -> dict[str, list[str]]:
    """Return the same of categories. They have no fingerprint, so all of their columns are compared."""
    if not stored:
        return {}
    latest = latest_arrival()
    shown = _times(_CATEGORY, "name", stored, ("remote_updated_at",))
    unsound: dict[str, list[str]] = {}
    for name, category in stored.items():
        names = []
        if shown.get(name, (None,))[0] != _shown(category.updated):
            names += ["remote_updated_at", "updated_stamp"]
        if category.arrival >= latest:
            names.append("arrival")
        if names:
            unsound[name] = names
    return unsound


def _times(
    table: str, key: str, keys: Collection[str], columns: tuple[str, ...]
) -> dict[str, tuple[Stamp | None, ...]]:
    """Return these time columns by key. A row whose times cannot be read has none."""
    condition, parameters = dialect().among(key, keys)
    try:
        found = dialect().select_rows(
            (key, *map(dialect().time_column, columns)), f"{table} WHERE {condition}", parameters
        )
    except UnreadableRowsError:
        if len(keys) == 1:
            return {}
        return {one: times for each in keys for one, times in _times(table, key, [each], columns).items()}
    return {one: tuple(map(stored_stamp, times)) for one, *times in found}


def _shown(stamp: Stamp | None) -> Stamp | None:
    """Return what a time column keeps of a time that is also stored at full precision."""
    return None if stamp is None else stored_stamp(to_microseconds(stamp))


def latest_arrival() -> int:
    """Return the first arrival that no owner of the lease can have given yet."""
    epoch = LeaseRow.objects.filter(pk=1).values_list("epoch", flat=True).first()
    return arrival_number((epoch or 0) + 1, 0)
