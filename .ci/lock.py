"""Write the lock files in `requirements/`: `python .ci/lock.py [--upgrade]`, with uv on the PATH.

runtime.txt locks the ranges of pyproject.toml with all extras, the others `requirements/*.in`. A lock names every
package at one version, with the hashes of its files, for all Pythons from 3.11 on and every system. Versions in a lock
stay unless a range excludes them or `--upgrade` is given.
"""

import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "requirements"
# In this order: a later one agrees with an earlier one where they share a package.
LOCKS = ("runtime", "test", "deploy", "fuzz")
HEAD = "# Written by `make lock` from {sources}; do not edit.\n"
SOURCES = {
    "runtime": ("../pyproject.toml", "--all-extras"),
    "test": ("../pyproject.toml", "test.in", "--all-extras"),
}


def main(options: list[str]) -> int:
    """Write each lock file. Return the exit status."""
    uv = shutil.which("uv")
    if uv is None:
        print("lock: uv is not on the PATH. Install it (pip install uv) and try again.", file=sys.stderr)
        return 1
    for name in LOCKS:
        lock = FOLDER / f"{name}.txt"
        sources = SOURCES.get(name, (f"{name}.in",))
        constraint = {"runtime": [], "test": ["-c", "runtime.txt"]}.get(name, ["-c", "test.txt"])
        command = [
            uv, "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes",
            "--no-header", "--no-emit-index-url", "--no-emit-find-links", *constraint, *options, *sources,
            "-o", lock.name,
        ]  # fmt: skip
        ran = subprocess.run(command, cwd=FOLDER, check=False)
        if ran.returncode:
            print(f"lock: {lock.name} could not be resolved and is unchanged.", file=sys.stderr)
            return 1
        read = " and ".join(Path(source).name for source in sources if not source.startswith("-"))
        lock.write_text(HEAD.format(sources=read) + lock.read_text())
        print(f"lock: requirements/{lock.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
