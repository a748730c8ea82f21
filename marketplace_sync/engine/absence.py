"""Absence is proved, not assumed: what a pass may remove for not being listed (law 5)."""

from collections.abc import Collection, Container
from dataclasses import dataclass

# Single fetches a pass may spend on proving absences by a 404.
MAX_PROOFS = 20
# More removals at once than this, or than this share of the mirror, wait for a person.
HOLD_ABOVE = 20
HOLD_ABOVE_SHARE = 10  # one in ten


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What one reading of the listing came to.

    `listed`: how many different skills it named, a broken record with a readable id counted.
    `problem`: why not every page was read, "" when all were. `unreadable`: broken records whose id
    was not readable. `moves`: skills that the stream told to come or go meanwhile.
    """

    listed: int
    first_total: int | None
    last_total: int | None
    problem: str
    unreadable: int
    moves: int


def unclean_reason(listing: Listing) -> str:
    """Why this reading proves nothing about what it did not name; "" when it is clean."""
    if listing.problem:
        return listing.problem
    if listing.unreadable:
        return f"{listing.unreadable} listed records had no readable id"
    if listing.first_total is not None and listing.last_total is not None:
        if abs(listing.last_total - listing.first_total) > listing.moves:
            return (
                f"the total moved from {listing.first_total} to {listing.last_total} while it was read, "
                f"and the stream told of {listing.moves} changes"
            )
        if listing.listed + listing.moves < min(listing.first_total, listing.last_total):
            return f"{listing.listed} skills were listed where {listing.last_total} were told"
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What to do about the skills that a pass did not list. The four sets are disjoint.

    `remove`: proved. `prove`: ask for each; a 404 removes it. `hold`: wait for a person, for
    `hold_reason`. `again`: not proved yet; a second clean pass that lacks them too proves it.
    """

    remove: frozenset[str]
    prove: tuple[str, ...]
    hold: frozenset[str]
    again: frozenset[str]
    hold_reason: str = ""


def judge(
    absent: Collection[str],
    *,
    clean: bool,
    listed: int,
    mirror_size: int,
    announced: Container[str],
    absent_before: Container[str],
    approved: Container[str],
    asked_last: str = "",
) -> Verdict:
    """What follows from `absent`, the skills of the mirror that the pass did not name.

    `announced`: the stream said that they went, though it could not be applied. `absent_before`:
    the clean pass just before lacked them too. `approved`: a person let their removal go ahead.
    `asked_last`: the skill that was asked for last in an earlier pass; an unclean pass goes on behind it, so that over
    several of them every absent skill has its turn.
    """
    if not clean:
        in_turn = sorted(absent, key=lambda key: (key <= asked_last, key))
        return Verdict(remove=frozenset(), prove=tuple(in_turn[:MAX_PROOFS]), hold=frozenset(), again=frozenset())
    unforeseen = [key for key in absent if key not in announced and key not in approved]
    hold_reason = _hold_reason(len(unforeseen), listed, mirror_size)
    hold = frozenset(unforeseen) if hold_reason else frozenset()
    remove = frozenset(key for key in absent if key not in hold and (key in approved or key in absent_before))
    rest = frozenset(absent) - hold - remove
    if len(rest) <= MAX_PROOFS:
        return Verdict(remove=remove, prove=tuple(sorted(rest)), hold=hold, again=frozenset(), hold_reason=hold_reason)
    return Verdict(remove=remove, prove=(), hold=hold, again=rest, hold_reason=hold_reason)


def _hold_reason(unforeseen: int, listed: int, mirror_size: int) -> str:
    if unforeseen and not listed:
        return f"the listing came empty, the mirror has {mirror_size} skills"
    most = max(HOLD_ABOVE, mirror_size // HOLD_ABOVE_SHARE)
    if unforeseen > most:
        return f"{unforeseen} of {mirror_size} skills are no longer listed; more than {most} wait for approval"
    return ""
