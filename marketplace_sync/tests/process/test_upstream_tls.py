"""TLS to a real server: what is trusted, what is refused, and the reason that an operator reads."""

import contextlib
import re
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from marketplace_sync.conf import SyncConfig
from marketplace_sync.models import Skill
from marketplace_sync.tests.support.harness import marketplace, mirror
from marketplace_sync.tests.support.processes import Environment, programs, settings_for
from marketplace_sync.tests.support.tls_front import HOST, Authority, Files, addresses, behind_tls, tls_front
from marketplace_sync.tests.support.upstream_peers import reasons
from marketplace_sync.upstream.access import Access, access_problems
from marketplace_sync.upstream.market import MarketClient
from marketplace_sync.upstream.stream import Stream
from marketplace_sync.upstream.tls import (
    NEEDS_CERTIFICATE,
    NO_COMMON_VERSION,
    REFUSES_CERTIFICATE,
    UNTRUSTED,
    client_context,
)

OLD = "ssl_protocols TLSv1.1; ssl_ciphers DEFAULT@SECLEVEL=0;"


def of_a_mirror(test: Any) -> Any:
    """Mark a test that runs a daemon or a command. On one database: no connection to the marketplace depends on it."""
    return pytest.mark.django_db(transaction=True)(pytest.mark.usefixtures("sqlite")(test))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), "authority")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return an authority that nobody trusts."""
    return Authority(tmp_path_factory.mktemp("stranger"), "stranger")


def both(reason: str) -> list[str]:
    return [f"the marketplace can't be reached: TLS: {reason}", f"the stream can't be reached: TLS: {reason}"]


async def assert_reached(settings: SyncConfig) -> None:
    access = Access(settings)
    async with MarketClient(settings, access) as market:
        assert (await market.categories()).categories
    stream = await Stream.open(settings, access)
    await stream.close()


@of_a_mirror
async def test_the_mirror_goes_live_over_tls_with_an_own_authority(tmp_path: Path, authority: Authority) -> None:
    async with (
        marketplace(skills=25) as server,
        tls_front(server.port, tmp_path, authority.certificate(HOST)) as port,
        mirror(server, **addresses(port), ca_file=authority.file, connect_timeout=20.0) as running,
    ):
        await running.until_state("live")
        assert await running.ask(Skill.objects.count) == 25
        await running.until_it_follows()
        assert (await running.status()).row.state == "live"


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (lambda ours, _: ours.certificate("elsewhere.example"), "the certificate is for another host name"),
        (lambda ours, _: ours.expired(HOST), "the certificate has expired"),
        (lambda _, theirs: theirs.certificate(HOST), UNTRUSTED),
    ],
    ids=["wrong host name", "expired", "unknown authority"],
)
async def test_an_invalid_certificate_is_refused_with_its_reason(
    tmp_path: Path, authority: Authority, stranger: Authority, made: Callable[..., Files], reason: str
) -> None:
    async with marketplace() as server, tls_front(server.port, tmp_path, made(authority, stranger)) as port:
        assert await reasons(behind_tls(port, ca_file=authority.file)) == both(reason)
        assert server.accepted == 0


async def test_without_an_own_authority_the_systems_trust_decides(tmp_path: Path, authority: Authority) -> None:
    async with marketplace() as server, tls_front(server.port, tmp_path, authority.certificate(HOST)) as port:
        assert await reasons(behind_tls(port)) == both(UNTRUSTED)


def test_an_own_authority_takes_the_place_of_the_systems(authority: Authority) -> None:
    own = client_context(SyncConfig(ca_file=authority.file))
    assert [context.verify_mode for context in (own, client_context(SyncConfig()))] == [ssl.CERT_REQUIRED] * 2
    assert own.check_hostname and own.cert_store_stats()["x509_ca"] == 1


@pytest.mark.parametrize(
    ("options", "version"),
    [(OLD, "1.2"), ("ssl_protocols TLSv1.2;", "1.3")],
    ids=["1.1 alone", "1.2 where 1.3 is asked for"],
)
async def test_an_old_version_of_tls_is_refused(
    tmp_path: Path, authority: Authority, options: str, version: str
) -> None:
    async with marketplace() as server, tls_front(server.port, tmp_path, authority.certificate(HOST), options) as port:
        settings = behind_tls(port, ca_file=authority.file, tls_min_version=version)
        assert await reasons(settings) == both(NO_COMMON_VERSION)


async def test_the_oldest_version_that_is_accepted_is_spoken(tmp_path: Path, authority: Authority) -> None:
    files = authority.certificate(HOST)
    async with marketplace() as server, tls_front(server.port, tmp_path, files, "ssl_protocols TLSv1.2;") as port:
        await assert_reached(behind_tls(port, ca_file=authority.file))


async def test_the_reason_names_a_marketplace_without_tls(authority: Authority) -> None:
    async with marketplace() as server:
        found = await reasons(behind_tls(server.port, ca_file=authority.file))
        assert found == both("the other side does not speak TLS: is its address one of http:// or ws://?")


# Client certificates.


async def test_a_client_certificate_is_sent(tmp_path: Path, authority: Authority, stranger: Authority) -> None:
    ours, theirs = authority.certificate("mirror"), stranger.certificate("mirror")
    options = f"ssl_verify_client on; ssl_client_certificate {authority.file};"
    async with marketplace() as server, tls_front(server.port, tmp_path, authority.certificate(HOST), options) as port:
        trust = {"ca_file": authority.file}
        given = {"client_cert_file": ours.certificate, "client_key_file": ours.key}
        await assert_reached(behind_tls(port, **trust, **given))
        assert await reasons(behind_tls(port, **trust)) == both(NEEDS_CERTIFICATE)
        given = {"client_cert_file": theirs.certificate, "client_key_file": theirs.key}
        assert await reasons(behind_tls(port, **trust, **given)) == both(REFUSES_CERTIFICATE)


async def test_certificate_and_key_may_share_a_file(tmp_path: Path, authority: Authority) -> None:
    ours = authority.certificate("mirror")
    together = _in_one_file(ours, tmp_path / "together.pem")
    options = f"ssl_verify_client on; ssl_client_certificate {authority.file};"
    async with marketplace() as server, tls_front(server.port, tmp_path, authority.certificate(HOST), options) as port:
        await assert_reached(behind_tls(port, ca_file=authority.file, client_cert_file=together))


@contextmanager
def alerting_server(files: Files, asks: Authority, version: ssl.TLSVersion) -> Iterator[int]:
    """Run a server that ends the handshake by an alert where nginx answers 400; in a thread, as asyncio sends none."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=asks.file)
    context.load_cert_chain(files.certificate, files.key)
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = context.maximum_version = version

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return  # closed: the test is over
            connection.settimeout(5)
            # Closed with something unread, a socket resets, and the alert is lost with it.
            with connection.dup() as bare:
                with contextlib.suppress(OSError):
                    context.wrap_socket(connection, server_side=True).close()
                bare.shutdown(socket.SHUT_WR)
                while bare.recv(65_536):
                    pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


async def test_the_alerts_of_tls_1_3_about_client_certificates_have_a_clear_reason(
    authority: Authority, stranger: Authority
) -> None:
    files, theirs = authority.certificate(HOST), stranger.certificate("mirror")
    with alerting_server(files, authority, ssl.TLSVersion.TLSv1_3) as port:
        found = await reasons(behind_tls(port, ca_file=authority.file))
        assert [reason.partition("TLS: ")[2] for reason in found] == [NEEDS_CERTIFICATE] * 2
        given = {"client_cert_file": theirs.certificate, "client_key_file": theirs.key}
        found = await reasons(behind_tls(port, ca_file=authority.file, **given))
        assert [reason.partition("TLS: ")[2] for reason in found] == [REFUSES_CERTIFICATE] * 2


# Where an operator meets it.


@of_a_mirror
async def test_the_daemon_treats_a_tls_error_like_any_other(tmp_path: Path, authority: Authority) -> None:
    async with (
        marketplace() as server,
        tls_front(server.port, tmp_path, authority.expired(HOST)) as port,
        mirror(
            server,
            **{**addresses(port), "ca_file": authority.file, "fallback_seconds": 3600.0, "connect_timeout": 20.0},
        ) as running,
    ):
        await running.until_state("polling")
        row = (await running.status()).row
        assert (row.consecutive_failures, row.disconnect_reason) == (
            3,  # a refused token would not have been tried three times
            "the stream can't be reached: TLS: the certificate has expired",
        )


@of_a_mirror
async def test_the_commands_and_the_log_name_the_tls_error(
    tmp_path: Path, authority: Authority, program_environment: Environment
) -> None:
    async with marketplace() as server, tls_front(server.port, tmp_path, authority.certificate(HOST)) as port:
        settings = settings_for(server, ATOM_SAAS_API_URL=addresses(port)["api_url"])
        with programs(program_environment(**settings)) as start:
            checked = await start.run("verifysync")
            assert (checked.status, checked.err) == (
                2,
                f"verifysync: the marketplace cannot be read: {both(UNTRUSTED)[0]}\n",
            )
            daemon = start.start("runsync")
            await daemon.prints(f'stream_failed .*reason="{re.escape(both(UNTRUSTED)[1])}"')
            daemon.send(signal.SIGTERM)
            assert (await daemon.ended()).status == 0
            healed = await start.run("verifysync", "--repair", ATOM_SAAS_CA_FILE=authority.file)
            assert (healed.status, healed.out) == (0, "In sync with the marketplace.\n")


# Unusable files.


def problems(**files: str) -> list[tuple[str, str]]:
    found = access_problems(SyncConfig(**files))  # type: ignore[arg-type]
    assert all("ATOM_SAAS_C" in problem.hint for problem in found)
    return [(problem.id.removeprefix("marketplace_sync."), problem.message) for problem in found]


def test_each_unusable_file_is_one_clear_problem(tmp_path: Path, authority: Authority, stranger: Authority) -> None:
    ours, theirs = authority.certificate("mirror"), stranger.certificate("mirror")
    empty, missing, locked = tmp_path / "empty", str(tmp_path / "none"), tmp_path / "locked.key"
    empty.touch()
    _encrypt(Path(ours.key), locked)
    cert, key = "ATOM_SAAS_CLIENT_CERT_FILE", "ATOM_SAAS_CLIENT_KEY_FILE"
    no_key = "contains no private key in PEM form without a passphrase."
    for files, expected in (
        ({"ca_file": missing}, [("E051", "ATOM_SAAS_CA_FILE can't be read: No such file or directory.")]),
        ({"ca_file": str(tmp_path)}, [("E051", "ATOM_SAAS_CA_FILE can't be read: Is a directory.")]),
        ({"ca_file": str(empty)}, [("E051", "ATOM_SAAS_CA_FILE contains no certificate in PEM form.")]),
        ({"ca_file": ours.key}, [("E051", "ATOM_SAAS_CA_FILE contains no certificate in PEM form.")]),
        ({"client_cert_file": ours.certificate}, [("E052", f"{cert} {no_key}")]),
        ({"client_cert_file": ours.key, "client_key_file": missing}, [
            ("E052", f"{cert} contains no certificate in PEM form."),
            ("E053", f"{key} can't be read: No such file or directory."),
        ]),
        ({"client_cert_file": ours.certificate, "client_key_file": str(empty)}, [("E053", f"{key} {no_key}")]),
        ({"client_cert_file": ours.certificate, "client_key_file": str(locked)}, [("E053", f"{key} {no_key}")]),
        ({"client_cert_file": ours.certificate, "client_key_file": theirs.key}, [
            ("E053", f"{key} contains a private key that does not belong to the certificate."),
        ]),
        ({"client_cert_file": ours.certificate, "client_key_file": ours.key, "ca_file": authority.file}, []),
    ):  # fmt: skip
        assert problems(**files) == expected, files


def _in_one_file(files: Files, into: Path) -> str:
    into.write_text(Path(files.key).read_text() + Path(files.certificate).read_text())
    return str(into)


def _encrypt(key: Path, into: Path) -> None:
    from cryptography.hazmat.primitives import serialization as form

    loaded = form.load_pem_private_key(key.read_bytes(), password=None)
    into.write_bytes(
        loaded.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.BestAvailableEncryption(b"words"))
    )


@of_a_mirror
async def test_an_unusable_file_ends_a_command_before_it_connects(
    program_environment: Environment,
) -> None:
    async with marketplace() as server:
        with programs(program_environment(**settings_for(server, ATOM_SAAS_CA_FILE="/no/such/file"))) as start:
            ended = await start.run("runsync")
            assert (ended.status, ended.err) == (
                1,
                "ATOM_SAAS_CA_FILE can't be read: No such file or directory. "
                "ATOM_SAAS_CA_FILE must name a file that this user may read.\n",
            )
            checked = await start.run("check")
            assert "(marketplace_sync.E051)" in checked.err and checked.status == 1
            assert server.accepted == 0
