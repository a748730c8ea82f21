"""Scrapes of `/metrics`, read as Prometheus reads them, for tests."""

from typing import Any

from django.test import Client
from prometheus_client.parser import text_string_to_metric_families

from marketplace_sync.monitoring import views

Labels = frozenset[tuple[str, str]]


class Scrape:
    """One answer of `/metrics`: the value of every series by name and labels."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.values: dict[tuple[str, Labels], float] = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        """Return the value of one series, its name without the prefix. Raises `KeyError` where it is not there."""
        return self.values[f"atom_mirror_{name}", frozenset(labels.items())]

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self.values}

    @property
    def of_the_daemon(self) -> str:
        """What the daemon wrote: all from its first series on."""
        return self.text.partition("# HELP atom_mirror_messages_received_total")[2]


def forget_answers() -> None:
    """Forget what is cached for 1 s."""
    for kept in (views.facts, views.sync_health, views.readiness):
        kept.clear()


def scrape(client: Client) -> Scrape:
    """Return a scrape that shows how things are now. It has to succeed."""
    forget_answers()
    answer: Any = client.get("/metrics")
    assert answer.status_code == 200, answer.content
    return Scrape(answer.content.decode())
