"""The login: Django's, but not to be tried for ever.

Not among the admin's pages: Unfold imports it while it makes the site that those register with.
"""

import math
from typing import Any

from django.forms import ValidationError
from unfold.forms import AuthenticationForm  # type: ignore[import-untyped]

from marketplace_sync.governance.sliding_window import SlidingWindow

# Failed logins from one address a minute. Not by account: whoever knows a name could keep its owner out.
failed_logins = SlidingWindow(10, 60.0)


class LoginForm(AuthenticationForm):  # type: ignore[misc]
    """Past the limit no password is looked at, not even a right one: each costs a tenth of a second of hashing."""

    def clean(self) -> Any:
        address = str(self.request.META.get("REMOTE_ADDR") or "")
        wait = failed_logins.wait(address)
        if wait is not None:
            raise ValidationError(
                f"Too many failed logins from this address; try again in {math.ceil(wait)} seconds.", code="throttled"
            )
        try:
            return super().clean()
        except ValidationError:
            failed_logins.admit(address)
            raise
