"""The services and their ports; `/metrics` and `/health` are one above."""

PORTS = {"um": 8910, "cm": 8920, "gateway": 8930, "recall": 8950, "rank": 8960}
METRICS_OFFSET = 1
