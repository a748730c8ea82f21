"""A TLS handshake with the marketplace and nothing else, through a proxy where one is configured: for the checkup."""

import asyncio
import base64
import ssl
from urllib.parse import unquote, urlsplit

from marketplace_sync.conf import SyncConfig
from marketplace_sync.upstream.access import Access
from marketplace_sync.upstream.connection import NEXT_ADDRESS_AFTER
from marketplace_sync.upstream.errors import UnreachableError, network_reason
from marketplace_sync.upstream.proxies import Proxy


async def open_tls(config: SyncConfig, access: Access) -> str:
    """Shake hands, and say with which version. Raises `UnreachableError`."""
    parts = urlsplit(config.api_url)
    host, port = parts.hostname or "", parts.port or 443
    proxy = access.http_proxy
    try:
        if proxy is None:
            _, writer = await asyncio.open_connection(
                host, port, ssl=access.tls, server_hostname=host, happy_eyeballs_delay=NEXT_ADDRESS_AFTER
            )
        else:
            writer = await _through(proxy, access.tls, host, port, to_tls=parts.scheme == "https")
    except (OSError, EOFError, asyncio.IncompleteReadError) as fault:
        raise UnreachableError(f"no TLS with {proxy or host}: {network_reason(fault)}") from None
    connection: ssl.SSLObject = writer.get_extra_info("ssl_object")
    writer.transport.abort()
    return f"{connection.version()}, {host if parts.scheme == 'https' else proxy}"


async def _through(
    proxy: Proxy, tls: ssl.SSLContext, host: str, port: int, *, to_tls: bool
) -> asyncio.StreamWriter:  # fmt: skip
    parts = urlsplit(proxy.url.reveal())
    reader, writer = await asyncio.open_connection(
        parts.hostname or "",
        parts.port or (443 if proxy.secure else 80),
        ssl=tls if proxy.secure else None,
        happy_eyeballs_delay=NEXT_ADDRESS_AFTER,
    )
    if not to_tls:
        return writer
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        lines.append(f"Proxy-Authorization: Basic {base64.b64encode(login).decode()}")
    writer.write("\r\n".join([*lines, "", ""]).encode())
    status = (await reader.readuntil(b"\r\n\r\n"))[9:12].decode("latin-1")
    if not status.startswith("2"):
        writer.transport.abort()
        raise UnreachableError(f"{proxy} answers HTTP {status}", int(status) if status.isdecimal() else None)
    await writer.start_tls(tls, server_hostname=host)
    return writer
