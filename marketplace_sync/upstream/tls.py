"""TLS to the marketplace: one context for HTTP and the stream, and what its failures mean to an operator.

Certificates and host names are always verified; no setting turns that off. The libraries would each make
a context of their own that trusts other authorities: httpx2 by its own rules, asyncio by OpenSSL's.
"""

import ssl
from pathlib import Path

from marketplace_sync.conf import BY_NAME, SyncConfig
from marketplace_sync.setting import SettingProblem

_CA, _CERT, _KEY = "ATOM_SAAS_CA_FILE", "ATOM_SAAS_CLIENT_CERT_FILE", "ATOM_SAAS_CLIENT_KEY_FILE"
_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}

UNTRUSTED = "the certificate is not signed by an authority that we trust: set ATOM_SAAS_CA_FILE to that authority's"
NEEDS_CERTIFICATE = "the marketplace asks for a client certificate: set ATOM_SAAS_CLIENT_CERT_FILE"
REFUSES_CERTIFICATE = "the marketplace refuses our client certificate (ATOM_SAAS_CLIENT_CERT_FILE)"
NO_COMMON_VERSION = "the marketplace offers no version of TLS that we accept (ATOM_SAAS_TLS_MIN_VERSION)"

# OpenSSL's numbers, X509_V_ERR_*.
_VERDICTS = {
    9: "the certificate is not valid yet; is this machine's clock right?",
    10: "the certificate has expired",
    18: UNTRUSTED,  # self-signed
    19: UNTRUSTED,  # the chain ends in an unknown authority
    20: UNTRUSTED,  # the issuer is unknown
    21: UNTRUSTED,
    23: "the certificate has been revoked",
    62: "the certificate is for another host name",
    64: "the certificate is for another address",
}
# OpenSSL's names of other errors; an ALERT was sent by the other side.
_REASONS = {
    "TLSV1_ALERT_PROTOCOL_VERSION": NO_COMMON_VERSION,
    "UNSUPPORTED_PROTOCOL": NO_COMMON_VERSION,
    "NO_PROTOCOLS_AVAILABLE": NO_COMMON_VERSION,
    "WRONG_VERSION_NUMBER": "the other side does not speak TLS: is its address one of http:// or ws://?",
    "HTTP_REQUEST": "the other side does not speak TLS: is its address one of http:// or ws://?",
    # TLS 1.2 sends this if a client certificate is missing, and also if there is no common cipher.
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "the marketplace refuses the handshake: does it ask for a client certificate "
    "(ATOM_SAAS_CLIENT_CERT_FILE)?",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": NEEDS_CERTIFICATE,
    "TLSV1_ALERT_UNKNOWN_CA": REFUSES_CERTIFICATE,
    "SSLV3_ALERT_BAD_CERTIFICATE": REFUSES_CERTIFICATE,
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": REFUSES_CERTIFICATE,
    "SSLV3_ALERT_CERTIFICATE_REVOKED": REFUSES_CERTIFICATE,
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": REFUSES_CERTIFICATE,
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": REFUSES_CERTIFICATE,
}
# By OpenSSL's name: what is wrong with a private key, and what to do.
_KEY_PROBLEMS = {
    "KEY_VALUES_MISMATCH": (
        "contains a private key that does not belong to the certificate.",
        "Set ATOM_SAAS_CLIENT_CERT_FILE and ATOM_SAAS_CLIENT_KEY_FILE to files that were made together.",
    ),
}
_NO_KEY = (
    "contains no private key in PEM form without a passphrase.",
    "ATOM_SAAS_CLIENT_KEY_FILE must name a file with -----BEGIN PRIVATE KEY----- in it.",
)


def client_context(config: SyncConfig) -> ssl.SSLContext:
    """Return the TLS context for the marketplace. Call `file_problems` first: broken files raise here.

    With `ca_file` that file alone is trusted, in place of the system's authorities.
    """
    context = ssl.create_default_context(cafile=config.ca_file or None)
    context.minimum_version = _VERSIONS[config.tls_min_version]
    if config.client_cert_file:
        _load_own(context, config)
    return context


def file_problems(config: SyncConfig) -> tuple[SettingProblem, ...]:
    """Check the files that the settings name; return at most one problem per setting."""
    problems = []
    for name, path in ((_CA, config.ca_file), (_CERT, config.client_cert_file), (_KEY, config.client_key_file)):
        if path and (reason := _unreadable(path)):
            problems.append(BY_NAME[name].problem("error", reason, f"{name} must name a file that this user may read."))
        elif path and name != _KEY and not _has_certificate(path):
            hint = f"{name} must name a file with -----BEGIN CERTIFICATE----- in it."
            problems.append(BY_NAME[name].problem("error", "contains no certificate in PEM form.", hint))
    if config.client_cert_file and not {_CERT, _KEY} & {problem.setting for problem in problems}:
        try:
            _load_own(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), config)
        except ssl.SSLError as error:
            name = _KEY if config.client_key_file else _CERT
            problems.append(BY_NAME[name].problem("error", *_KEY_PROBLEMS.get(error.reason or "", _NO_KEY)))
    return tuple(problems)


def tls_reason(error: ssl.SSLError) -> str:
    """Translate OpenSSL's error to one clear reason, for status, log and the answers to commands."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS: {_VERDICTS.get(error.verify_code) or error.verify_message or 'the certificate is not valid'}"
    return f"TLS: {_REASONS.get(error.reason or '') or (error.reason or 'handshake failed').lower().replace('_', ' ')}"


def asks_for_certificate(status: int, body: bytes) -> str:
    """Return the reason if a 400 is about our client certificate, else "": nginx answers so after the handshake."""
    if status == 400 and b"No required SSL certificate was sent" in body:
        return f"TLS: {NEEDS_CERTIFICATE}"
    if status == 400 and b"The SSL certificate error" in body:
        return f"TLS: {REFUSES_CERTIFICATE}"
    return ""


def _unreadable(path: str) -> str:
    """Return why the file can't be read; "" if it can."""
    try:
        Path(path).read_bytes()
    except OSError as error:
        return f"can't be read: {error.strerror}."
    return ""


def _has_certificate(path: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        return False
    return True


def _load_own(context: ssl.SSLContext, config: SyncConfig) -> None:
    # Without a password OpenSSL would ask for one on the terminal.
    context.load_cert_chain(config.client_cert_file, config.client_key_file or None, password="")
