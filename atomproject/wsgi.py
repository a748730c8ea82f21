"""The WSGI entry point, for servers without WebSocket. Pages and API work; live updates need `asgi`."""

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application

from atomproject.databases import set_up_web

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "atomproject.settings")
if not settings.configured:  # otherwise a program that is no web server imports this, with connections open
    set_up_web(settings)

application = get_wsgi_application()
