"""`manage.py runsync`, in a process of its own, which notes when each commit was.

`python -m bench.daemon NOTES [--no-websocket] [--profile FILE]`: on its end NOTES has `[nanoseconds, feed number]` of
every commit, on the machine's monotonic clock. Noting stands in the place of the hint that goes to the web processes
after a commit.
"""

import argparse
import cProfile
import json
import threading
import time
from pathlib import Path

import django


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("notes", type=Path)
    options.add_argument("--no-websocket", action="store_true")
    options.add_argument("--profile", type=Path, help="the writer's thread and the loop's, as .writer and .loop")
    chosen = options.parse_args()
    django.setup()
    from django.core.management import call_command

    from marketplace_sync.management.commands import runsync

    commits: list[tuple[int, int]] = []
    runsync.hint_sender = lambda: lambda seq: commits.append((time.monotonic_ns(), seq))  # type: ignore[assignment]
    profiles = profiled() if chosen.profile else {}
    try:
        call_command("runsync", no_websocket=chosen.no_websocket)
    finally:
        chosen.notes.write_text(json.dumps(commits))
        for name, profile in profiles.items():
            profile.create_stats()
            profile.dump_stats(f"{chosen.profile}.{name}")


def profiled() -> dict[str, cProfile.Profile]:
    """Profile this thread and each later one by CPU time, which is comparable on a shared machine."""
    profiles = {"loop": cProfile.Profile(time.thread_time)}

    def begin(*_: object) -> None:
        threading.setprofile(None)
        name = threading.current_thread().name
        profiles[name] = profile = cProfile.Profile(time.thread_time)
        profile.enable()
        threading.setprofile(begin)

    threading.setprofile(begin)
    profiles["loop"].enable()
    return profiles


if __name__ == "__main__":
    main()
