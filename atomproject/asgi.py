"""The ASGI entry point: `uvicorn atomproject.asgi:application`."""

import os

from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "atomproject.settings")

application = ProtocolTypeRouter(
    {
        # Sets Django up, so it stands before anything that imports models.
        "http": get_asgi_application(),
        "websocket": URLRouter([]),
    }
)
