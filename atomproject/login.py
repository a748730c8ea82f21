"""Django's login with the limits of `login_limits`.

A module of its own: unfold imports the form while it creates the site that `admin.py` registers pages with.
"""

from typing import Any

from django.contrib import admin
from django.contrib.auth.backends import BaseBackend, ModelBackend
from django.core.exceptions import PermissionDenied
from django.forms import ValidationError
from django.http import HttpRequest, HttpResponse
from unfold.forms import AuthenticationForm  # type: ignore[import-untyped]

from atomproject.login_limits import LoginLimits, LoginRefusedError
from marketplace_sync import client_address

login_limits = LoginLimits()


class LimitedLogin(BaseBackend):
    """The first of `AUTHENTICATION_BACKENDS`: it checks every password, from every page and API.

    `ModelBackend` comes second, for permissions and for existing sessions. It never checks a password, because each
    wrong one would be hashed twice. An unknown name is counted and hashed like a known one.
    """

    def authenticate(
        self, request: HttpRequest | None, username: str | None = None, password: str | None = None, **others: Any
    ) -> Any:
        """Return the user, or `None` without a name and password. Raises `PermissionDenied`, `LoginRefusedError`."""
        if username is None or password is None:
            return None
        address = client_address.neighbourhood(client_address.of_request(request)) if request is not None else ""
        with login_limits.attempt(username, address) as attempt:
            user = ModelBackend().authenticate(request, username, password, **others)
            if user is not None:
                attempt.succeed()
        if user is None:
            raise PermissionDenied
        return user

    def get_user(self, user_id: int) -> Any:
        return ModelBackend().get_user(user_id)


class LoginForm(AuthenticationForm):  # type: ignore[misc]
    """Unfold's form. It shows a refusal by the limits; `login_page` sets the status of that response."""

    def clean(self) -> Any:
        try:
            return super().clean()
        except LoginRefusedError as refused:
            self.request.login_refused = refused
            raise ValidationError(str(refused.detail), code=refused.default_code) from refused


def login_page(request: HttpRequest) -> HttpResponse:
    """Return the admin's login page; with 429 or 503 and `Retry-After` if the limits refused the attempt."""
    response = admin.site.login(request)
    refused: LoginRefusedError | None = getattr(request, "login_refused", None)
    if refused is not None:
        response.status_code = refused.status_code
        response["Retry-After"] = str(refused.wait)
        response._has_been_logged = True  # type: ignore[attr-defined]  # otherwise Django logs an ERROR line for each 503
    return response
