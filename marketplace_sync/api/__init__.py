"""The HTTP API. It translates between HTTP and governance or the mirror, and decides nothing.

Every view is a `views.StrictView`: it refuses unknown parameters, answers errors in one format and requires an actor.
Whatever changes something is an action of `governance.actions`, which checks and audits it; the views under
`/api/admin/` only check who may read.
"""
