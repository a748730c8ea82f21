"""The WSGI entry point, for servers without WebSocket: pages and API work, live updates need `asgi`."""

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application

from atomproject.env import shared

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "atomproject.settings")
if not settings.configured:  # else another program than a web server, whose connections are open already
    settings.DATABASES["default"] = shared(settings.DATABASES["default"])

application = get_wsgi_application()
