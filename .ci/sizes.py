"""Print how large the code is: `python .ci/sizes.py [COMMIT …]`; without a commit: the last one.

Lines are all lines of tracked Python files; a function's length is from its `def` to its last line, its docstring
included. Tests are counted apart.
"""

import ast
import statistics
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

PRODUCT = ("atomproject/", "marketplace_sync/", "manage.py")
TESTS = "marketplace_sync/tests/"
LARGE = 300


class Function(NamedTuple):
    """One function: how many lines it has, and where it is."""

    lines: int
    name: str


def main(commits: list[str]) -> None:
    """Print the figures of each commit."""
    for commit in commits or ["HEAD"]:
        files = dict(sources(commit))
        product = {path: text for path, text in files.items() if not path.startswith(TESTS)}
        tests = {path: text for path, text in files.items() if path.startswith(TESTS)}
        print(git("describe", "--always", commit).strip())
        report_files(product)
        report_functions(product)
        print(f"  tests      {len(tests)} files, {sum(map(lines, tests.values())):,} lines")


def report_files(product: dict[str, str]) -> None:
    """Print the sizes of files."""
    sizes = {path: lines(text) for path, text in product.items()}
    largest = max(sizes, key=sizes.__getitem__)
    median = statistics.median(sizes.values())
    print(f"  product    {len(sizes)} files, {sum(sizes.values()):,} lines, median {median:g}")
    above = sum(size > LARGE for size in sizes.values())
    print(f"  files      largest {sizes[largest]} ({largest}); {above} above {LARGE}")


def report_functions(product: dict[str, str]) -> None:
    """Print the sizes of functions."""
    found = [function for path, text in product.items() for function in functions(path, text)]
    median = statistics.median(function.lines for function in found)
    print(f"  functions  {len(found):,}, median {median:g} lines")
    print(f"  largest    {', '.join(f'{one.lines} {one.name}' for one in sorted(found, reverse=True)[:3])}")


def lines(text: str) -> int:
    """Return the number of lines of a text."""
    return text.count("\n")


def sources(commit: str) -> Iterator[tuple[str, str]]:
    """Yield the path and text of each Python file of the product and its tests, migrations left out."""
    for path in git("ls-tree", "-r", "--name-only", commit).splitlines():
        if path.endswith(".py") and path.startswith(PRODUCT) and "/migrations/" not in path:
            yield path, git("show", f"{commit}:{path}")


def functions(path: str, text: str) -> Iterator[Function]:
    """Yield the functions and methods of a module, nested ones too."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield Function((node.end_lineno or node.lineno) - node.lineno + 1, f"{path}:{node.name}")


def git(*arguments: str) -> str:
    """Return the output of git. Raises `CalledProcessError`."""
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    main(sys.argv[1:])
