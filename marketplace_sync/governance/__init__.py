"""Policy, actors, management actions and their audit (law 15).

The API, the admin pages and the commands build an action with its actor and perform it; they decide nothing:

    actor = actor_of(request.user)                      # None: nobody, answer 401
    command = Reconnect(actor=actor, reason=..., origin="api 127.0.0.1").perform()
"""
