"""The checks of the marketplace behind a proxy and TLS of nginx."""

from pathlib import Path

from marketplace_sync.conf import Secret
from marketplace_sync.tests.support.connect_proxy import ConnectProxy
from marketplace_sync.tests.support.harness import marketplace
from marketplace_sync.tests.support.tls_front import Authority, behind_tls, tls_front
from marketplace_sync.tests.unit.test_checkmarketplace import failure, steps


async def test_tls_fails_with_the_setting_for_its_reason(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path, "one"), Authority(tmp_path, "other")
    async with marketplace(1) as server:
        async with tls_front(server.port, tmp_path, authority.certificate("localhost")) as port:
            step = await failure(behind_tls(port, ca_file=stranger.file))
            assert (step.step, "ATOM_SAAS_CA_FILE" in step.hint) == ("tls", True)
            taken = await steps(behind_tls(port, ca_file=authority.file))
            assert taken[-1].ok and taken[2].detail.startswith("TLSv1.")
        async with tls_front(server.port, tmp_path, authority.certificate("elsewhere.example")) as port:
            step = await failure(behind_tls(port, ca_file=authority.file))
            assert (step.step, "ATOM_SAAS_API_URL" in step.hint) == ("tls", True)


async def test_all_steps_pass_through_a_proxy_and_its_refusals_name_it(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "one")
    async with marketplace(1) as server, ConnectProxy(login="u:p") as proxy:
        async with tls_front(server.port, tmp_path, authority.certificate("market.invalid")) as port:
            ready = {"ca_file": authority.file, "host": "market.invalid"}
            taken = await steps(behind_tls(port, **ready, https_proxy=Secret(f"http://u:p@{proxy.address}")))
            assert taken[-1].ok
            assert "left to the proxy" in taken[0].detail
            step = await failure(behind_tls(port, **ready, https_proxy=Secret(f"http://{proxy.address}")))
    assert (step.step, "HTTPS_PROXY=http://user:password@" in step.hint) == ("tls", True)
    assert "407" in step.detail
