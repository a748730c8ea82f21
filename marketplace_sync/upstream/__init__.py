"""The connection to the marketplace: one HTTP client, one WebSocket connection. I/O without policy.

`market.MarketClient` fetches pages and single records; `stream.Stream` is one connection of the live
stream. Both return the typed events of `protocol`, and raise the exceptions of `errors`: a failure never
looks like an empty answer. The daemon decides when to connect, to list and to give up.
"""

from marketplace_sync import __version__

# Sent with every request and handshake.
USER_AGENT = f"marketplace-mirror/{__version__}"
