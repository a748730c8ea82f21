# ruff: noqa: T201
"""Copy the mirror and follow its change feed, with the place in a file: MIRROR_KEY=... python docs/follow.py URL FILE

URL: ws://127.0.0.1:8000/ws/changes/. FILE: the last number handled. Without it everything is listed first, by cursor;
then the feed is followed from the number of the first page.
"""

import json
import os
import sys
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import connect


def key() -> dict[str, str]:
    return {"Authorization": f"Bearer {os.environ['MIRROR_KEY']}"}


def keep(place: Path, seq: int) -> None:
    place.with_suffix(".new").write_text(str(seq))
    place.with_suffix(".new").replace(place)


def list_all(url: str, place: Path) -> None:
    root = url.replace("ws", "http", 1).removesuffix("/ws/changes/")
    first = None
    for kind in ("skill", "category"):
        page = f"{root}/api/{'skills' if kind == 'skill' else 'categories'}/?cursor=&page_size=500"
        while page:
            with urlopen(Request(page, headers=key()), timeout=45) as answer:
                first = first or answer.headers["X-Feed-Seq"]  # the first page's: the feed has all that came after it
                content = json.load(answer)
            for row in content["results"]:
                # Your work stands here: take the row into your copy.
                print("listed", kind, json.dumps(row["skill_id" if kind == "skill" else "name"]), flush=True)
            page = content["next"]
    keep(place, int(first or 0))


def follow(url: str, place: Path) -> None:
    with connect(f"{url}?after={place.read_text()}", additional_headers=key(), max_size=None) as feed:
        while True:
            message = json.loads(feed.recv(timeout=45))  # three heartbeats: the server has gone
            for change in message.get("changes", ()):
                # Your work stands here; killed within it, the change comes again.
                print(change["seq"], change["kind"], json.dumps(change["key"]), flush=True)
                message["seq"] = change["seq"]
            keep(place, message["seq"])


def main(url: str, place: Path) -> None:
    while True:
        try:
            if not place.exists():
                list_all(url, place)
            follow(url, place)
        except (WebSocketException, OSError) as lost:
            if isinstance(lost, ConnectionClosed) and lost.rcvd and lost.rcvd.code in (4400, 4401, 4403, 4410):
                # 4410: empty your copy and remove the file; everything is listed again.
                sys.exit(f"{lost.rcvd.code}: {lost.rcvd.reason}")
            if isinstance(lost, HTTPError) and lost.code in (400, 401, 403, 404):
                sys.exit(f"{lost.code}: {lost.reason}")
            print(f"lost: {lost}; coming back", file=sys.stderr, flush=True)
            time.sleep(2)


main(sys.argv[1], Path(sys.argv[2]))
