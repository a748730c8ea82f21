"""The ASGI entry point: `uvicorn atomproject.asgi:application`."""

import os

from channels.routing import ProtocolTypeRouter
from django.conf import settings
from django.core.asgi import get_asgi_application

from atomproject.env import WEB_LOCK_SECONDS, shared
from marketplace_sync.postgres import set_up_sessions
from marketplace_sync.web.deadline import limit_statements

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "atomproject.settings")
if not settings.configured:  # else another program than a web server, whose connections are open already
    settings.DATABASES["default"] = shared(settings.DATABASES["default"])
    set_up_sessions(lock_timeout=f"{WEB_LOCK_SECONDS}s")
    limit_statements(settings.DATABASE_STATEMENT_SECONDS)

# Sets Django up, so it stands before anything that imports models.
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
