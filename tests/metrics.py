"""What metrics the code declares, by the names that Prometheus sees."""

from dataclasses import dataclass

from prometheus_client.metrics import MetricWrapperBase

from ecrs.kit import observe


@dataclass(frozen=True)
class Declared:
    type: str
    labels: tuple[str, ...]


def declared() -> dict[str, Declared]:
    """All metrics of the platform's own, which kit.observe declares."""
    metrics = [value for value in vars(observe).values() if isinstance(value, MetricWrapperBase)]
    return {
        metric._name + ("_total" if metric._type == "counter" else ""): Declared(
            metric._type, tuple(metric._labelnames)
        )
        for metric in metrics
    }
