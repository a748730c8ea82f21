"""The Django project around the marketplace mirror: settings, URLs, the ASGI and WSGI entry points."""
