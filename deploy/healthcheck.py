"""Is this web process alive? Exit 0 or 1, for a supervisor's health check: healthcheck.py [PORT] [PATH]

It asks as the proxy in front would: by a host name that the site answers to, and as if by HTTPS where that is wanted.
"""

import http.client
import sys
from pathlib import Path

TIMEOUT_SECONDS = 4


def main(port: int = 8000, path: str = "/health/live") -> str:
    """Return the problem; "" when there is none."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from atomproject.settings import ALLOWED_HOSTS

    host = ALLOWED_HOSTS[0].lstrip(".") if ALLOWED_HOSTS else "localhost"
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    try:
        headers = {"Host": "localhost" if host == "*" else host, "X-Forwarded-Proto": "https"}
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return "" if answer.status == http.client.OK else f"{path} answers {answer.status}"
    except (OSError, http.client.HTTPException) as error:
        return f"{path} does not answer: {error}"
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:2]), *sys.argv[2:3]) or 0)
