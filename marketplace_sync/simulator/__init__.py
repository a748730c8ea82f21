"""A simulated marketplace to try and test against: HTTP and WebSocket on one port, with faults on demand.

`Marketplace` is the catalogue, `SimulatorServer` serves it, `server.faults` makes the server misbehave:

    market = Marketplace(skills=[{"skill_id": "s1", "name": "Send Email"}])
    async with SimulatorServer(market) as server:
        ...  # point a client at server.api_url and server.ws_url
        server.faults.add("mute")
        market.put_skill({"skill_id": "s1", "name": "Send Mail"})

It shares no decoder with the client, so that an error in one can't hide an error in the other. A wheel may leave this
package out: only the command `runsimulator` and tests import it.
"""

from marketplace_sync.simulator.faults import FAULTS, FaultSet, UnknownFaultError
from marketplace_sync.simulator.marketplace import Marketplace, Snapshot
from marketplace_sync.simulator.server import SimulatorServer

__all__ = ["FAULTS", "FaultSet", "Marketplace", "SimulatorServer", "Snapshot", "UnknownFaultError"]
