"""gRPC for every service: server, client, deadlines, circuit breaker, load control, errors, observability.

Nothing here depends on what the services do.
"""
