"""The HTTP API: a door. It reads requests, asks governance or the mirror, and writes answers; it decides nothing.

Every view is a `views.View`: known parameters only, errors in one shape, an actor always. What changes anything is
an action of `governance.actions`, which checks and audits; views under `/api/admin/` check reads alone.
"""
