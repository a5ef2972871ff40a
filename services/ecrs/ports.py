"""The services and their gRPC ports."""

PORTS = {"um": 8910, "cm": 8920, "gateway": 8930, "recall": 8950, "rank": 8960}
METRICS_OFFSET = 1
"""The HTTP port of a service, with `/metrics` and `/health`, is its gRPC port plus this number."""
