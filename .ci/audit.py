"""Known vulnerabilities of what is installed: exit 1 for one, 2 where nobody could be asked, 0 otherwise.

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
SOUND, VULNERABLE, NOBODY_ASKED = 0, 1, 2
# The longest list of names that still fits a terminal.
_NAMED = 10


def main(command: list[str]) -> int:
    """Look every installed package up and print what was found. Return the exit status."""
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        packages = json.loads(ran.stdout)["dependencies"]
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError, TypeError) as error:
        return _nobody_asked(f"the advisory service could not be asked ({type(error).__name__})")
    known = [package for package in packages if "skip_reason" not in package]
    # An index without advisories knows none of them, which pip-audit itself calls "no known vulnerabilities".
    if not known:
        return _nobody_asked(f"the advisory service knows none of {len(packages)} packages")
    found = [(package, flaw) for package in known for flaw in package["vulns"]]
    for package, flaw in found:
        fixed = ", ".join(flaw["fix_versions"]) or "no version yet"
        print(f"audit: {package['name']} {package['version']} has {flaw['id']}; fixed in {fixed}")
    print(f"audit: {len(known)} of {len(packages)} packages looked up, {len(found)} known vulnerabilities.")
    unknown = sorted(package["name"] for package in packages if "skip_reason" in package)
    if unknown:
        more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
        print(f"audit: not looked up, since the service does not know them: {', '.join(unknown[:_NAMED])}{more}.")
    return VULNERABLE if found else SOUND


def _nobody_asked(why: str) -> int:
    print(f"audit: {why}. Nothing is known about the installed packages: run it where the service can be reached.")
    return NOBODY_ASKED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(PIP_AUDIT)))
