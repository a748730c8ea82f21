# ruff: noqa: T201
"""Follow the mirror's change feed, and keep the place in a file: MIRROR_KEY=... python docs/follow.py URL FILE

URL: ws://127.0.0.1:8000/ws/changes/. FILE: holds the last number handled. Begin it with the `X-Feed-Seq` of the list
that you begin from; without a FILE, all that the feed keeps is told.
"""

import json
import os
import sys
import time
from pathlib import Path

from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import connect


def follow(url: str, place: Path) -> None:
    after = int(place.read_text()) if place.exists() else 0
    key = {"Authorization": f"Bearer {os.environ['MIRROR_KEY']}"}
    with connect(f"{url}?after={after}", additional_headers=key, max_size=None) as feed:
        while True:
            message = json.loads(feed.recv(timeout=45))  # three heartbeats: the server has gone
            for change in message.get("changes", ()):
                # Your work stands here; killed within it, the change comes again.
                print(change["seq"], change["kind"], change["key"], flush=True)
                message["seq"] = change["seq"]
            place.with_suffix(".new").write_text(str(message["seq"]))
            place.with_suffix(".new").replace(place)


while True:
    try:
        follow(sys.argv[1], Path(sys.argv[2]))
    except (WebSocketException, OSError) as lost:
        if isinstance(lost, ConnectionClosed) and lost.rcvd and lost.rcvd.code in (4400, 4401, 4403, 4410):
            sys.exit(f"{lost.rcvd.code}: {lost.rcvd.reason}")  # 4410: list anew, and begin from its X-Feed-Seq
        print(f"lost: {lost}; coming back", file=sys.stderr, flush=True)
        time.sleep(2)
