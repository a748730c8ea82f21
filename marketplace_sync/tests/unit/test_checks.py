"""What `manage.py check` reports about the settings."""

from typing import Any

import pytest
from django.core.checks import Error, run_checks

from marketplace_sync.conf import SETTINGS, find_problems, unknown_names
from marketplace_sync.setting import Kind, SettingProblem

# For each kind, a text that can't be one.
IMPOSSIBLE = {
    Kind.BOOL: "maybe", Kind.INT: "many", Kind.FLOAT: "nan", Kind.FLOATS: "1,x", Kind.URL: "nowhere",
    Kind.SECRET: "two words", Kind.FILE: "/no/such/file", Kind.CHOICE: "1.1", Kind.PROXY: "two words", Kind.HOSTS: 5,
    Kind.NETWORKS: "nobody", Kind.PREFIX: "https://h/api", Kind.AUTH: "query:token", Kind.QUERY_AUTH: "X Token",
}  # fmt: skip
RANGED = [setting for setting in SETTINGS if abs(setting.recommended[0]) < 1e300 and setting.kind is not Kind.SECRET]


def messages() -> dict[str, Any]:
    """Return the messages of the checks by id."""
    return {message.id: message for message in run_checks(tags=["marketplace_sync"])}


@pytest.fixture(autouse=True)
def _a_marketplace(settings: Any) -> None:
    settings.ATOM_SAAS_API_URL = "https://market.example"
    settings.ATOM_SAAS_API_TOKEN = "a-token-for-checks"


def test_a_good_configuration_is_silent() -> None:
    assert messages() == {}


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_each_setting_has_an_error_with_a_hint(settings: Any, setting: Any) -> None:
    setattr(settings, setting.name, IMPOSSIBLE[setting.kind])
    (message,) = messages().values()
    assert isinstance(message, Error)
    assert message.id == f"marketplace_sync.E{setting.number:03d}"
    assert message.msg.startswith(f"{setting.name} ")
    assert setting.name in message.hint or setting.kind in (Kind.SECRET, Kind.URL)


@pytest.mark.parametrize("setting", RANGED, ids=lambda setting: setting.name)
def test_each_range_has_a_warning_on_both_sides_where_there_is_room(settings: Any, setting: Any) -> None:
    low, high = setting.recommended
    step = 1 if setting.kind is Kind.INT else 0.001
    outside = [value for value in (low - step, high + step) if setting.least <= value <= setting.most]
    for value in outside:
        setattr(settings, setting.name, str(value))
        assert f"marketplace_sync.W{setting.number:03d}" in messages()
    setattr(settings, setting.name, str(low))
    assert f"marketplace_sync.W{setting.number:03d}" not in messages()


def test_a_missing_marketplace_is_a_warning(settings: Any) -> None:
    settings.ATOM_SAAS_API_URL = settings.ATOM_SAAS_API_TOKEN = ""
    assert sorted(messages()) == ["marketplace_sync.W001", "marketplace_sync.W003"]


def test_a_misspelt_name_is_reported_with_the_right_one(settings: Any) -> None:
    settings.ENVIRONMENT_NAMES = ("ATOM_SAAS_API_TOKE", "ATOM_SAAS_API_TOKEN", "HOME", "ATOM_SAAS_SYNC_INTERVAL")
    assert [(message.msg.split()[0], message.hint) for message in run_checks(tags=["marketplace_sync"])] == [
        ("ATOM_SAAS_API_TOKE", "Did you mean ATOM_SAAS_API_TOKEN?"),
        ("ATOM_SAAS_SYNC_INTERVAL", "Did you mean ATOM_SAAS_SYNC_INTERVAL_MINUTES?"),
    ]
    assert unknown_names(["ATOM_SAAS_"])[0].hint.startswith("Did you mean ATOM_SAAS_")


def test_what_the_settings_module_could_not_read_is_reported(settings: Any) -> None:
    settings.ENVIRONMENT_PROBLEMS = (
        SettingProblem("marketplace_sync.E031", "DATABASE_URL", "DATABASE_URL is odd.", "Fix it."),
    )
    (message,) = messages().values()
    assert (message.id, message.msg, message.hint) == ("marketplace_sync.E031", "DATABASE_URL is odd.", "Fix it.")


def test_a_project_without_our_settings_module_gets_no_message(settings: Any) -> None:
    del settings.ENVIRONMENT_PROBLEMS, settings.ENVIRONMENT_NAMES
    assert messages() == {}


def test_the_checks_and_the_commands_read_the_same(settings: Any) -> None:
    settings.ATOM_SAAS_PAGE_SIZE = "0"
    assert {problem.id for problem in find_problems(settings)} == set(messages())
