"""Read the settings in which deployments of the marketplace differ: the path of the API, and the place of the token.

An `auth` is `bearer` (the header `Authorization: Bearer ...`), the name of a header that carries the bare token, or, on
the stream alone, `query:NAME` for a parameter of its URL.
"""

import re

BEARER = "bearer"
_QUERY = "query:"
# RFC 9110, 5.6.2. Of paths and parameters, only characters that need no quoting in a URL (RFC 3986, 2.3).
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}", re.ASCII)
_PATH = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*", re.ASCII)
_PARAMETER = re.compile(r"[A-Za-z0-9._~-]{1,100}", re.ASCII)
# These mean something else to servers, or our libraries set them.
_TAKEN = re.compile(
    "accept(-encoding)?|connection|content-(length|type)|cookie|date|expect|host|keep-alive|origin|proxy-authorization"
    "|sec-websocket-.*|te|trailer|transfer-encoding|upgrade|user-agent",
    re.IGNORECASE,
)


class VariantError(ValueError):
    """Raised for a setting that can't work. `message` continues after the setting's name, `hint` is the fix."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


def read_prefix(text: str, setting: str) -> str:
    """Return the path between the base URL and a documented path: "", or with a slash in front and none at the end."""
    hint = f"Write the path alone, such as {setting}=/api/v1; set but empty means that there is none."
    if "://" in text:
        raise VariantError("is a URL.", f"{hint} The host belongs in ATOM_SAAS_API_URL.")
    path = text.strip().rstrip("/")
    if path and not path.startswith("/"):
        path = f"/{path}"
    if not _PATH.fullmatch(path) or {".", ".."} & set(path.split("/")):
        raise VariantError("is not the path of a URL.", hint)
    return path


def read_auth(text: str, setting: str, *, query: bool) -> str:
    """Return what carries the token. `query`: a parameter of the URL is allowed."""
    name = text.strip()
    parameter = ", =query:NAME for a parameter of the URL" if query else ""
    hint = f"Write {setting}=bearer{parameter}, or the name of the header that carries the token, such as X-API-Token."
    if name.lower() == BEARER:
        return BEARER
    if name.lower() == _QUERY[:-1] or name.lower().startswith(_QUERY):  # nobody calls a header "query"
        parameter_name = name[len(_QUERY) :]
        if not query:
            raise VariantError("names a parameter of the URL, which the HTTP API does not take.", hint)
        if not _PARAMETER.fullmatch(parameter_name):
            raise VariantError("names a parameter that no URL can carry.", hint)
        return _QUERY + parameter_name
    if not _HEADER.fullmatch(name):
        raise VariantError("is not the name of a header.", hint)
    if _TAKEN.fullmatch(name):
        raise VariantError("names a header that has another meaning.", hint)
    return name


def token_headers(auth: str, token: str) -> dict[str, str]:
    """Return the header that carries the token; none where the URL does."""
    if auth == BEARER:
        return {"Authorization": f"Bearer {token}"}
    return {} if query_parameter(auth) else {auth: token}


def query_parameter(auth: str) -> str:
    """Return the parameter of the URL that carries the token; "" where a header does."""
    return auth[len(_QUERY) :] if auth.startswith(_QUERY) else ""
