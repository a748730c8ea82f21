"""`make audit`: red for a known vulnerability, and not for a service that is away."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

AUDIT = Path(__file__).resolve().parents[2] / ".ci" / "audit.py"
FLAW = {"id": "CVE-2021-1", "fix_versions": ["2.0"], "aliases": [], "description": ""}
SOUND = {"name": "sound", "version": "1.0", "vulns": []}
SKIPPED = {"name": "unknown", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("answer", "status", "says"),
    [
        ([SOUND], 0, "1 of 1 packages looked up, 0 known"),
        ([SOUND, SKIPPED], 0, "1 of 2 packages looked up, 0 known"),
        ([SOUND, {"name": "old", "version": "1.0", "vulns": [FLAW]}], 1, "old 1.0 has CVE-2021-1; mended in 2.0"),
        ([SKIPPED], 0, "nothing was audited"),
        (None, 0, "nothing was audited"),
    ],
)
def test_a_known_vulnerability_fails_the_run_and_a_service_that_is_away_does_not(
    tmp_path: Path, answer: object, status: int, says: str
) -> None:
    stub = tmp_path / "advisories.py"
    text = "Connection refused" if answer is None else json.dumps({"dependencies": answer, "fixes": []})
    stub.write_text(f"print({text!r})\nraise SystemExit(1)")
    told = subprocess.run(
        [sys.executable, str(AUDIT), sys.executable, str(stub)], capture_output=True, text=True, timeout=50, check=False
    )
    assert (told.returncode, told.stderr) == (status, "")
    assert says in told.stdout
