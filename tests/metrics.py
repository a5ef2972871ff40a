"""The metrics that the code declares, by the names under which Prometheus scrapes them."""

from dataclasses import dataclass

from prometheus_client.metrics import MetricWrapperBase

from ecrs import metrics as shop_metrics
from ecrs.rpc import metrics as rpc_metrics


@dataclass(frozen=True)
class Declared:
    type: str
    labels: tuple[str, ...]


def declared() -> dict[str, Declared]:
    """Return all metrics of the platform: those of RPCs and those of recommending."""
    metrics = [
        value
        for module in (rpc_metrics, shop_metrics)
        for value in vars(module).values()
        if isinstance(value, MetricWrapperBase)
    ]
    return {
        metric._name + ("_total" if metric._type == "counter" else ""): Declared(
            metric._type, tuple(metric._labelnames)
        )
        for metric in metrics
    }
