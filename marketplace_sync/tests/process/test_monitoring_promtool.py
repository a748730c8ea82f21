"""The alert rules and the dashboard's queries, checked by promtool."""

import shutil
import subprocess
from pathlib import Path

import yaml

from marketplace_sync.tests.conftest import without_service
from marketplace_sync.tests.database.test_monitoring_deploy import PROMETHEUS, panels


def promtool(*arguments: str, folder: Path = PROMETHEUS) -> None:
    """Run it; it has to be content."""
    if not shutil.which("promtool"):
        without_service("promtool")
    result = subprocess.run(["promtool", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_promtool_accepts_the_rules() -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", "alerts.yml")


def test_rules_pass_their_unit_tests() -> None:
    promtool("test", "rules", "alerts_test.yml")


def test_promtool_accepts_every_dashboard_query(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": expr} for number, (_, expr) in enumerate(panels())]
    assert len(rules) > 40
    (tmp_path / "panels.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", "panels.yml", folder=tmp_path)
