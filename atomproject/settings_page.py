"""`docs/settings.md` and `.env.example`, made of the tables of settings: python -m atomproject.settings_page"""

import math
from pathlib import Path

from atomproject.env import ENVIRONMENT
from marketplace_sync.conf import SETTINGS
from marketplace_sync.setting_values import Kind, Setting

PROJECT = Path(__file__).resolve().parent.parent
ALL = (*SETTINGS, *ENVIRONMENT)

_PAGE_HEAD = """\
# Settings

Made of the tables in `marketplace_sync/conf.py` and `atomproject/env.py` by `python -m atomproject.settings_page`.

All come from the environment, or from the file `.env` in the project folder; what the environment has comes first. An
empty value is the default. Durations are in seconds where the name does not say otherwise, and fractions are allowed.
`python manage.py check` tells what can't work as an error (`marketplace_sync.E` and the number), and what is unwise as
a warning (`marketplace_sync.W` and the number).

`DJANGO_ENV_FILE` names another file than `.env`, by its path from the project folder or from the root: a secret that a
supervisor hands over, say. It has to be there then. Empty: no file is read.
"""
_TABLE_HEAD = ("| setting | default | | can work | recommended | no. |", "| --- | --- | --- | --- | --- | --- |")
_EXAMPLE_HEAD = """\
# Copy to .env and change what you need. Each line shows the default; an empty value is the default too.
# What the process's environment has comes before this file. Durations are in seconds where the name
# does not say otherwise; fractions are allowed. `python manage.py check` tells what is wrong.
"""


def page() -> str:
    """The reference: a table for each group, in the order of the tables."""
    groups: dict[str, list[Setting]] = {}
    for setting in ALL:
        groups.setdefault(_group(setting), []).append(setting)
    parts = [_PAGE_HEAD]
    for title, settings in groups.items():
        lines = (f"## {title}\n", *_TABLE_HEAD, *map(_row, settings), "")
        parts.append("\n".join(lines))
    return "\n".join(parts)


def example() -> str:
    """What `.env.example` holds: each setting with its default and one line of help."""
    return _EXAMPLE_HEAD + "".join(f"\n# {setting.help}\n{setting.name}={setting.default}\n" for setting in ALL)


def _group(setting: Setting) -> str:
    name = setting.name
    if name.endswith(("_KEEP_DAYS", "_KEEP_ROWS")):
        return "What is kept, and how long"
    if name.startswith("ATOM_SAAS_WS_"):
        return "The live stream"
    if name.startswith("ATOM_SAAS_"):
        return "The marketplace, and passes over its listing"
    if name.startswith(("HEALTH_", "METRICS_")):
        return "Health and metrics"
    return "The service"


def _row(setting: Setting) -> str:
    default = f"`{setting.default}`" if setting.default else ""
    help_text = setting.help.replace("|", "\\|")
    return f"| `{setting.name}` | {default} | {help_text} | {_works(setting)} | {_wise(setting)} | {setting.number} |"


def _works(setting: Setting) -> str:
    if setting.kind is Kind.URL:
        return " or ".join(f"`{scheme}://`" for scheme in setting.schemes)
    span = _span(setting.least, setting.most)
    if not span:
        return str(setting.kind)
    off = "0, or " if setting.zero_is_off else ""
    each = "each " if setting.kind is Kind.FLOATS else ""
    return f"{each}{off}{span}{_unit(setting)}"


def _wise(setting: Setting) -> str:
    span = _span(*setting.recommended)
    return f"{span}{_unit(setting)}" if span else ""


def _span(low: float, high: float) -> str:
    return f"{low:,.15g} to {high:,.15g}" if math.isfinite(low) and math.isfinite(high) else ""


def _unit(setting: Setting) -> str:
    return f" {setting.unit}" if setting.unit else ""


FILES = {PROJECT / "docs" / "settings.md": page, PROJECT / ".env.example": example}

if __name__ == "__main__":
    for path, made in FILES.items():
        path.write_text(made(), encoding="utf-8")
