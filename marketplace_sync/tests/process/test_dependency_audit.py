"""`make audit`: exit 1 for a known vulnerability, 2 without an answer of the advisory service, never 0 for nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

AUDIT = Path(__file__).resolve().parents[3] / ".ci" / "audit.py"
FLAW = {"id": "CVE-2021-1", "fix_versions": ["2.0"], "aliases": [], "description": ""}
SOUND = {"name": "sound", "version": "1.0", "vulns": []}
SKIPPED = {"name": "unknown", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("answer", "status", "printed"),
    [
        ([SOUND], 0, "1 of 1 packages looked up, 0 known"),
        ([SOUND, SKIPPED], 0, "1 of 2 packages looked up, 0 known"),
        ([SOUND, SKIPPED], 0, "does not know them: unknown."),
        ([SOUND, {"name": "old", "version": "1.0", "vulns": [FLAW]}], 1, "old 1.0 has CVE-2021-1; fixed in 2.0"),
        ([SKIPPED], 2, "knows none of 1 packages. Nothing is known"),
        ([], 2, "knows none of 0 packages. Nothing is known"),
        (None, 2, "could not be asked (JSONDecodeError). Nothing is known"),
    ],
)
def test_exit_status_shows_whether_the_advisory_service_answered(
    tmp_path: Path, answer: object, status: int, printed: str
) -> None:
    stub = tmp_path / "advisories.py"
    text = "Connection refused" if answer is None else json.dumps({"dependencies": answer, "fixes": []})
    stub.write_text(f"print({text!r})\nraise SystemExit(1)")
    ran = subprocess.run(
        [sys.executable, str(AUDIT), sys.executable, str(stub)], capture_output=True, text=True, timeout=50, check=False
    )
    assert (ran.returncode, ran.stderr) == (status, "")
    assert printed in ran.stdout
    assert status != 2 or "audited" not in ran.stdout


def test_a_missing_program_counts_as_no_answer(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, str(AUDIT), str(tmp_path / "none")], capture_output=True, text=True, timeout=50, check=False
    )
    assert (ran.returncode, ran.stderr) == (2, "")
