"""`make audit`: exit 1 for a known vulnerability, 2 where nobody could be asked, and never green for nothing."""

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
    ("answer", "status", "says"),
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
def test_the_exit_status_says_whether_anybody_could_be_asked(
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
    assert status != 2 or "audited" not in told.stdout


def test_a_program_that_is_not_there_is_nobody_who_could_be_asked(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, str(AUDIT), str(tmp_path / "none")], capture_output=True, text=True, timeout=50, check=False
    )
    assert (told.returncode, told.stderr) == (2, "")
