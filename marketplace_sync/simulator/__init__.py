"""A marketplace to try and test against: real HTTP and WebSocket on one port, with faults on cue.

`Marketplace` is the truth, `SimulatorServer` serves it, `server.faults` makes it misbehave:

    market = Marketplace(skills=[{"skill_id": "s1", "name": "Send Email"}])
    async with SimulatorServer(market) as server:
        ...  # point a client at server.api_url and server.ws_url
        server.faults.add("mute")
        market.put_skill({"skill_id": "s1", "name": "Send Mail"})

It is the other side of the wire: it shares no decoder with the client, so a misreading can't cancel out.
"""

from marketplace_sync.simulator.faults import FAULTS, FaultSet, UnknownFaultError
from marketplace_sync.simulator.marketplace import Marketplace, Snapshot
from marketplace_sync.simulator.server import SimulatorServer

__all__ = ["FAULTS", "FaultSet", "Marketplace", "SimulatorServer", "Snapshot", "UnknownFaultError"]
