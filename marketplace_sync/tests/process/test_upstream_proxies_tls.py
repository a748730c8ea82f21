"""A mirror behind a proxy, with TLS of nginx."""

from pathlib import Path

import pytest

from marketplace_sync.conf import Secret
from marketplace_sync.tests.database.test_upstream_proxies import HOST
from marketplace_sync.tests.support.connect_proxy import ConnectProxy
from marketplace_sync.tests.support.harness import marketplace, mirror
from marketplace_sync.tests.support.tls_front import Authority, addresses, tls_front


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("sqlite")  # no connection to the marketplace depends on the database
async def test_the_mirror_goes_live_through_a_proxy_with_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    async with (
        marketplace() as server,
        tls_front(server.port, tmp_path, authority.certificate(HOST)) as port,
        ConnectProxy() as proxy,
        mirror(
            server, **addresses(port, HOST), ca_file=authority.file, https_proxy=Secret(f"http://{proxy.address}"),
            connect_timeout=20.0,
        ) as running,
    ):  # fmt: skip
        await running.until_state("live")
        await running.until_it_follows()
        assert proxy.tunnels == [f"{HOST}:{port}"]
        assert {line.split()[0] for line in proxy.asked} == {"CONNECT"}
