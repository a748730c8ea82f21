"""The WSGI entry point, for servers without WebSocket: pages and API work, live updates need `asgi`."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "atomproject.settings")

application = get_wsgi_application()
