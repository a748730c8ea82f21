"""The ASGI entry point: `uvicorn atomproject.asgi:application`."""

import os

from channels.routing import ProtocolTypeRouter
from django.conf import settings
from django.core.asgi import get_asgi_application

from atomproject.databases import set_up_web

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "atomproject.settings")
if not settings.configured:  # otherwise a program that is no web server imports this, with connections open
    set_up_web(settings)

# This sets Django up, so it comes before anything that imports models.
_http = get_asgi_application()

from atomproject import uvicorn_fixes  # noqa: E402
from atomproject.bodies import BoundedBodies  # noqa: E402
from atomproject.peer import RealPeer  # noqa: E402
from marketplace_sync.live.consumers import FeedConsumer  # noqa: E402
from marketplace_sync.live.routing import websockets  # noqa: E402

uvicorn_fixes.install()
application = ProtocolTypeRouter(
    {"http": BoundedBodies(RealPeer(_http)), "websocket": RealPeer(websockets(FeedConsumer()))}
)
