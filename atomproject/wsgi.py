"""The WSGI entry point, for servers without WebSocket: pages and API work, live updates need `asgi`."""

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application

from atomproject.env import WEB_LOCK_SECONDS, shared
from marketplace_sync.postgres import set_up_sessions
from marketplace_sync.web.deadline import limit_statements

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "atomproject.settings")
if not settings.configured:  # else another program than a web server, whose connections are open already
    settings.DATABASES["default"] = shared(settings.DATABASES["default"])
    set_up_sessions(lock_timeout=f"{WEB_LOCK_SECONDS}s")
    limit_statements(settings.DATABASE_STATEMENT_SECONDS)

application = get_wsgi_application()
