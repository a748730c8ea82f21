"""Known vulnerabilities of what is installed: fails on one, and says so where nobody could be asked.

`python .ci/audit.py` asks pip-audit; another program that prints what `pip-audit -f json` prints may be named instead.
"""

import json
import subprocess
import sys
from pathlib import Path

PIP_AUDIT = (
    str(Path(sys.executable).with_name("pip-audit")), "--local", "--skip-editable", "--progress-spinner", "off",
    "--timeout", "15", "-f", "json",
)  # fmt: skip


def main(command: list[str]) -> int:
    """The exit status: 1 for a known vulnerability, 0 otherwise; a service that is away is no reason to fail."""
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        packages = json.loads(ran.stdout)["dependencies"]
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError, TypeError) as fault:
        print(f"audit: the advisory service could not be asked ({type(fault).__name__}); nothing was audited.")
        return 0
    audited = [package for package in packages if "skip_reason" not in package]
    found = [(package, flaw) for package in audited for flaw in package["vulns"]]
    for package, flaw in found:
        mended = ", ".join(flaw["fix_versions"]) or "no version yet"
        print(f"audit: {package['name']} {package['version']} has {flaw['id']}; mended in {mended}")
    # An index without advisories answers for none of them, which pip-audit itself calls "no known vulnerabilities".
    if not audited:
        print(f"audit: the advisory service knows none of {len(packages)} packages; nothing was audited.")
    else:
        print(f"audit: {len(audited)} of {len(packages)} packages looked up, {len(found)} known vulnerabilities.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(PIP_AUDIT)))
