"""A marketplace behind TLS: nginx in front of the simulator, with certificates of an authority made for the tests."""

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import trustme

from marketplace_sync.conf import Secret, SyncConfig
from marketplace_sync.tests.conftest import without_service
from marketplace_sync.tests.support.harness import TOKEN
from marketplace_sync.tests.support.processes import Program, until

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
# The marketplace's host name; only a proxy of the tests resolves a name under .invalid.
HOST = "localhost"

_CONFIG = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    map $http_upgrade $upgrade {{ default upgrade; '' close; }}
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {certificate}; ssl_certificate_key {key};
        {options}
        location / {{
            proxy_pass http://127.0.0.1:{behind};
            proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $upgrade;
            proxy_read_timeout 1h;
        }}
    }}
}}
"""


@dataclass(frozen=True)
class Files:
    """A certificate and its key, in one file each."""

    certificate: str
    key: str


class Authority:
    """An authority that signs certificates; `file` has its own certificate, for its clients."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._made = 0
        self._ca = trustme.CA()
        self.file = str(folder / f"{name}.pem")
        self._ca.cert_pem.write_to_path(self.file)

    def certificate(self, *names: str, **validity: datetime) -> Files:
        self._made += 1
        made = self._ca.issue_cert(*names, **validity)  # type: ignore[arg-type]
        files = Files(*(str(self._folder / f"{self._name}-{self._made}.{end}") for end in ("crt", "key")))
        made.private_key_pem.write_to_path(files.key)
        for number, part in enumerate(made.cert_chain_pems):
            part.write_to_path(files.certificate, append=number > 0)
        return files

    def expired(self, *names: str) -> Files:
        now = datetime.now(UTC)
        return self.certificate(*names, not_before=now - timedelta(days=9), not_after=now - timedelta(days=2))


@asynccontextmanager
async def tls_front(behind: int, folder: Path, files: Files, options: str = "") -> AsyncIterator[int]:
    """nginx with that certificate in front of that port; its own port. Ends the test where there is no nginx."""
    if NGINX is None:
        without_service("nginx")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = folder / f"nginx-{port}.conf"
    settings.write_text(
        _CONFIG.format(
            folder=folder, port=port, behind=behind, options=options, certificate=files.certificate, key=files.key
        )
    )
    command = [str(NGINX), "-c", str(settings), "-p", str(folder), "-e", str(folder / "error.log")]
    nginx = Program(command, os.environ, folder)
    try:

        async def answers() -> bool:
            assert nginx.running, nginx.err
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                return False
            writer.close()
            return True

        await until(answers, "nginx answers")
        yield port
    finally:
        nginx.end()


def addresses(port: int, host: str = HOST) -> dict[str, Any]:
    """Where a marketplace on that port is, as fields of the settings."""
    return {"api_url": f"https://{host}:{port}", "ws_url": f"wss://{host}:{port}/ws"}


def behind_tls(port: int, host: str = HOST, **changes: Any) -> SyncConfig:
    """Return settings for the marketplace there, with patience for a busy machine's handshakes."""
    return SyncConfig(api_token=Secret(TOKEN), connect_timeout=20.0, **addresses(port, host), **changes)
