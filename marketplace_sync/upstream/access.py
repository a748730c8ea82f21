"""TLS context, proxies and token for the marketplace, shared by HTTP and the stream."""

from collections.abc import Callable
from ssl import SSLContext

from marketplace_sync.conf import BY_NAME, ConfigError, SyncConfig
from marketplace_sync.logs import protect
from marketplace_sync.setting import InvalidValueError, Level, SettingProblem
from marketplace_sync.upstream.proxies import Proxy, proxy_for, proxy_problems
from marketplace_sync.upstream.tls import client_context, file_problems
from marketplace_sync.upstream.token import Token, file_source, read_token


class Access:
    """Provide the TLS context, the proxies and the token. Created once per process.

    `again` re-reads a token that has no file of its own, see `Token`.

    Raises `ConfigError` for files and proxies that can't be used.
    """

    def __init__(self, config: SyncConfig, again: Callable[[], str] | None = None) -> None:
        problems = access_problems(config)
        if problems:
            raise ConfigError(problems)
        self.tls: SSLContext = client_context(config)
        self.http_proxy = _proxy(config, config.api_url)
        self.stream_proxy = _proxy(config, config.ws_url)
        if config.api_token_file:
            again = file_source(config.api_token_file)
            self.token = Token(read_token(again), again)
        else:
            self.token = Token(config.api_token, again)


def access_problems(config: SyncConfig, *, token: Level = "error") -> tuple[SettingProblem, ...]:
    """Check the files and proxies that the settings name. `token`: the level of a token file that can't be used.

    Parsing the settings reads no file. Files change, so the result is only valid at this moment.
    """
    return (*_token_problems(config, token), *file_problems(config), *proxy_problems(config))


def _token_problems(config: SyncConfig, level: Level) -> tuple[SettingProblem, ...]:
    if config.api_token_file:
        try:
            read_token(file_source(config.api_token_file))
        except InvalidValueError as unfit:
            setting = BY_NAME["ATOM_SAAS_API_TOKEN_FILE"]
            hint = f"{setting.name} must name a file with the token in it and nothing else, which this user may read."
            return (setting.problem(level, unfit.message, hint),)
    return ()


def _proxy(config: SyncConfig, address: str) -> Proxy | None:
    proxy = proxy_for(config, address)
    for secret in proxy.secrets if proxy is not None else ():
        protect(secret)
    return proxy
