"""Tests under tests/unit and tests/database start no process."""

import os
import subprocess
import sys

import pytest

from marketplace_sync.tests.support.processes import MANAGE, Program

REFUSED = "starts a process .*: move it to tests/process"


def test_a_process_is_refused() -> None:
    with pytest.raises(RuntimeError, match=REFUSED):
        subprocess.run([sys.executable, "-c", "pass"], check=True)


def test_a_program_of_the_fork_server_is_refused() -> None:
    with pytest.raises(RuntimeError, match=REFUSED):
        Program([sys.executable, str(MANAGE), "version"], os.environ, MANAGE.parent)
