"""Alert rules, dashboard and runbook are valid, match each other, and use only metrics that exist."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.test import Client

from marketplace_sync.daemon import publisher
from marketplace_sync.tests.support.harness import marketplace, mirror
from marketplace_sync.tests.support.scrapes import Scrape, scrape

FOLDER = Path(__file__).resolve().parents[3]
PROMETHEUS = FOLDER / "deploy" / "prometheus"
RULES = [rule for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
TRIED = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"]
DASHBOARD = json.loads((FOLDER / "deploy" / "grafana" / "marketplace-mirror.json").read_text())
RUNBOOK = (FOLDER / "docs" / "runbook.md").read_text()

# A metric with what is asked of its labels.
_SELECTOR = re.compile(r"\b(atom_mirror_\w+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)(=~|!=|!~|=)"([^"]*)"')
# Sections of the runbook that are no alert's.
_OTHER_SECTIONS = {"Setting up alerts"}


def panels() -> Iterator[tuple[str, str]]:
    """Title and expression of every query of the dashboard, its variables filled in."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"].replace("$__rate_interval", "5m")


def expressions() -> list[tuple[str, str]]:
    return [(rule["alert"], rule["expr"]) for rule in RULES] + list(panels())


def missing_metrics(now: Scrape) -> list[str]:
    """Return the metrics that rules and panels query and the scrape does not contain."""
    return [
        f"{where}: {selector[0]}"
        for where, expression in expressions()
        for selector in _SELECTOR.finditer(expression)
        if not any(
            name == selector[1]
            and all(agrees(dict(labels), *matcher) for matcher in _MATCHER.findall(selector[2] or ""))
            for name, labels in now.values
        )
    ]


def agrees(labels: dict[str, str], label: str, operator: str, value: str) -> bool:
    if label not in labels:
        return False
    if operator in ("=~", "!~"):
        return bool(re.fullmatch(value, labels[label])) == (operator == "=~")
    return (labels[label] == value) == (operator == "=")


@pytest.mark.django_db(transaction=True)
async def test_every_metric_of_alerts_and_panels_is_scraped(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    monkeypatch.setattr(publisher, "EVERY_SECONDS", 0.05)
    settings.METRICS_PUBLIC = "true"
    async with marketplace() as server, mirror(server) as running:
        shown: list[Scrape] = []

        async def written() -> bool:
            shown.append(await running.ask(scrape, Client()))
            return bool(shown[-1].of_the_daemon)

        await running.until(written, "the daemon has written")
        assert missing_metrics(shown[-1]) == []


def test_metric_missing_from_a_scrape_is_found() -> None:
    fewer = Scrape('atom_mirror_syncs_total{outcome="clean"} 1\natom_mirror_daemon_up 1\n')
    missing = missing_metrics(fewer)
    assert 'MirrorSyncsFailing: atom_mirror_syncs_total{outcome="failed"}' in missing
    assert not any(line.endswith("atom_mirror_daemon_up") for line in missing)


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_each_alert_has_severity_texts_and_unit_tests(rule: dict[str, Any]) -> None:
    name = rule["alert"]
    assert rule["labels"]["severity"] in {"info", "warning", "critical"}
    assert rule["for"]
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    # A heading's anchor is its text in lower case.
    assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"
    expected = [
        [sample["labels"] for sample in step["exp_samples"]]
        for test in TRIED
        if test["name"] == name
        for step in test["promql_expr_test"]
    ]
    assert expected[0] == [], "silent before its time"
    assert any(f'alertname="{name}"' in labels for labels in expected[-1]), "firing after it"


def test_each_alert_has_its_section_and_each_section_an_alert() -> None:
    sections = re.findall(r"^## (.+)$", RUNBOOK, re.MULTILINE)
    assert len(sections) == len(set(sections))
    assert set(sections) - _OTHER_SECTIONS == {rule["alert"] for rule in RULES}
    for section in re.split(r"^## ", RUNBOOK, flags=re.MULTILINE)[1:]:
        title, _, text = section.partition("\n")
        if title not in _OTHER_SECTIONS:
            assert re.findall(r"^\*\*(\w+)\.\*\*", text, re.MULTILINE) == ["Means", "Look", "Do"], title


def test_settings_and_events_named_in_the_runbook_exist() -> None:
    source = "".join(
        path.read_text() for path in (FOLDER / "marketplace_sync").rglob("*.py") if "tests" not in path.parts
    )
    settings = (FOLDER / ".env.example").read_text()
    for word in re.findall(r"`([^`\n]+)`", RUNBOOK):
        if re.fullmatch(r"[A-Z]+(_[A-Z]+)+(=\S+)?", word):
            assert f"\n{word.partition('=')[0]}=" in settings, word
        elif re.fullmatch(r"[a-z]+(_[a-z]+)+", word) and not word.startswith("atom_mirror"):
            assert f'"{word}"' in source, f"{word} is no log event and no value"
    for anchor in re.findall(r"\]\(#(\w+)\)", RUNBOOK):
        assert anchor in {rule["alert"].lower() for rule in RULES}
