"""Absence is proved, not assumed: decide which skills a full sync may remove because they were not listed (law 5)."""

from collections.abc import Collection, Container
from dataclasses import dataclass

# Single fetches that one full sync may spend to prove absences by a 404.
MAX_PROOFS = 20
# More removals than this, and than this share of the mirror, need approval.
APPROVAL_ABOVE = 20
APPROVAL_ABOVE_SHARE = 10  # one in ten

_NONE: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The result of reading the listing once.

    `listed`: the number of different skills in it; a broken record with a readable id counts. `first_total`,
    `last_total`: the reported totals, `None` if none was reported. `problem`: why not every page was read, "" if all
    were. `unreadable`: the broken records without a readable id. `moves`: the skills that the stream reported as new
    or removed meanwhile.
    """

    listed: int
    first_total: int | None
    last_total: int | None
    problem: str
    unreadable: int
    moves: int


def unclean_reason(listing: Listing) -> str:
    """Return why the full sync proves nothing about skills that it did not list; "" if it is clean."""
    if listing.problem:
        return listing.problem
    if listing.unreadable:
        return f"{listing.unreadable} listed records had no readable id"
    if listing.first_total is not None and listing.last_total is not None:
        if abs(listing.last_total - listing.first_total) > listing.moves:
            return (
                f"the total moved from {listing.first_total} to {listing.last_total} while it was read, "
                f"and the stream reported {listing.moves} changes"
            )
        if listing.listed + listing.moves < min(listing.first_total, listing.last_total):
            return f"{listing.listed} skills were listed, and the reported total is {listing.last_total}"
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The decision about the skills that a full sync did not list. The four sets are disjoint.

    `remove`: proved to be gone. `prove`: fetch each; a 404 removes it. `needs_approval`: for `approval_reason`.
    `again`: not proved yet; a second clean sync in which they are missing too proves it.
    """

    remove: frozenset[str]
    prove: tuple[str, ...]
    needs_approval: frozenset[str]
    again: frozenset[str]
    approval_reason: str = ""


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
    """Return what to do about `absent`, the stored skills that the full sync did not list.

    `announced`: the stream reported their removal, though it could not be applied. `absent_before`: missing in the
    clean sync just before too. `approved`: a person or agent approved their removal. `asked_last`: the last skill
    that an earlier sync fetched; an unclean sync continues behind it, so that over several syncs each absent skill
    has its turn.
    """
    if not clean:
        in_turn = sorted(absent, key=lambda key: (key <= asked_last, key))
        return Verdict(remove=_NONE, prove=tuple(in_turn[:MAX_PROOFS]), needs_approval=_NONE, again=_NONE)
    unforeseen = [key for key in absent if key not in announced and key not in approved]
    approval_reason = _approval_reason(len(unforeseen), listed, mirror_size)
    needs_approval = frozenset(unforeseen) if approval_reason else frozenset()
    remove = frozenset(key for key in absent if key not in needs_approval and (key in approved or key in absent_before))
    rest = frozenset(absent) - needs_approval - remove
    few = len(rest) <= MAX_PROOFS
    return Verdict(
        remove=remove,
        prove=tuple(sorted(rest)) if few else (),
        needs_approval=needs_approval,
        again=_NONE if few else rest,
        approval_reason=approval_reason,
    )


def _approval_reason(unforeseen: int, listed: int, mirror_size: int) -> str:
    if unforeseen and not listed:
        return f"the listing is empty, and the mirror has {mirror_size} skills"
    most = max(APPROVAL_ABOVE, mirror_size // APPROVAL_ABOVE_SHARE)
    if unforeseen > most:
        return f"{unforeseen} of {mirror_size} skills are no longer listed; more than {most} removals need approval"
    return ""
