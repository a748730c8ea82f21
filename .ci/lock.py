"""Make the lock files of `requirements/*.in`: `python .ci/lock.py [--upgrade]`, with uv on the PATH.

A lock names every package at one version, with the hashes of its files, for all Pythons from 3.11 on and every
system. Versions that are in a lock stay unless the list asks for another, or `--upgrade` is given.
"""

import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "requirements"
# In this order: a later one agrees with an earlier one where they share a package.
LOCKS = ("runtime", "test", "deploy", "fuzz")
HEAD = "# Made of {name}.in by `make lock`; not to be edited.\n"


def main(options: list[str]) -> int:
    """Write each lock file. Return the exit status."""
    uv = shutil.which("uv")
    if uv is None:
        print("lock: uv is not on the PATH. Install it (pip install uv) and try again.", file=sys.stderr)
        return 1
    for name in LOCKS:
        lock = FOLDER / f"{name}.txt"
        constraint = {"runtime": [], "test": ["-c", "runtime.txt"]}.get(name, ["-c", "test.txt"])
        command = [
            uv, "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes",
            "--no-header", "--no-emit-index-url", "--no-emit-find-links", *constraint, *options,
            f"{name}.in", "-o", lock.name,
        ]  # fmt: skip
        ran = subprocess.run(command, cwd=FOLDER, check=False)
        if ran.returncode:
            print(f"lock: {name}.in could not be resolved; {lock.name} is as it was.", file=sys.stderr)
            return 1
        lock.write_text(HEAD.format(name=name) + lock.read_text())
        print(f"lock: requirements/{lock.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
