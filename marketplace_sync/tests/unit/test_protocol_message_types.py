"""The table of message types is complete, and each of its rows is consistent."""

from typing import get_args

import pytest

from marketplace_sync.protocol.events import Change
from marketplace_sync.protocol.message_types import (
    BY_NAME,
    HEARTBEATS,
    MESSAGE_TYPES,
    MessageType,
    Repair,
    Subject,
    readable_key,
    repair_of,
    subject_of,
    type_of,
)
from marketplace_sync.simulator.marketplace import Marketplace

every_type = pytest.mark.parametrize("message_type", MESSAGE_TYPES, ids=lambda each: each.name)
# The least that a message of any type may have.
DATA = {"skill_id": "s1", "name": "One", "rating": 5}


def decoded(message_type: MessageType) -> Change:
    return message_type.decode(DATA, None, False, "9999")


def test_every_event_has_exactly_one_message_type() -> None:
    assert {each.event for each in MESSAGE_TYPES} == set(get_args(Change))
    assert len(BY_NAME) == len(MESSAGE_TYPES) == len(get_args(Change))
    assert not BY_NAME.keys() & HEARTBEATS.keys()


@every_type
def test_an_encoded_event_is_decoded_to_an_equal_one(message_type: MessageType) -> None:
    event = decoded(message_type)
    assert type(event) is message_type.event
    assert type_of(event) is message_type
    assert message_type.decode(message_type.encode(event), None, False, "9999") == event


@every_type
def test_the_key_of_an_event_is_the_key_of_a_refused_message(message_type: MessageType) -> None:
    event = decoded(message_type)
    assert message_type.key_of(event) == readable_key(message_type.name, DATA) == DATA[message_type.subject.value]


@every_type
def test_the_simulator_replays_and_announces_every_type(message_type: MessageType) -> None:
    market = Marketplace()
    announced = []
    market.listeners.append(lambda message, raw: announced.append(message))
    message = {"type": message_type.name, "data": message_type.encode(decoded(message_type))}
    market.apply(message)
    assert announced == [message]


def test_only_a_skill_with_a_readable_id_can_be_fetched() -> None:
    assert repair_of(Subject.SKILL, "s1") is Repair.FETCH
    assert repair_of(Subject.SKILL, None) is Repair.FULL_SYNC
    assert repair_of(Subject.CATEGORY, "tools") is Repair.FULL_SYNC


def test_a_message_of_an_unknown_type_may_name_a_skill() -> None:
    assert subject_of("skill_explode") is Subject.SKILL
    assert readable_key("skill_explode", DATA) == "s1"
