"""
The metrics of a node in a registry of C{prometheus_client}.

Needs C{tsrt[prometheus]}.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from tsrt.errors import NotRunning
from tsrt.runtime.metrics import Metric

_TOTAL = "_total"


class Measured(Protocol):
    """What of a node is asked."""

    def metrics(self) -> list[Metric]:
        """See L{Node.metrics<tsrt.node.Node.metrics>}."""


class NodeCollector(Collector):
    """
    Reads the metrics of a node whenever the registry is read.

    A node that does not run has none.
    """

    def __init__(self, node: Measured) -> None:
        """
        @param node: the node.
        """
        self._node = node

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """See C{prometheus_client}."""
        try:
            metrics = self._node.metrics()
        except NotRunning:
            return
        for metric in metrics:
            names = sorted({name for labels, _ in metric.samples for name in labels})
            family: CounterMetricFamily | GaugeMetricFamily
            if metric.kind == "counter":
                # The library puts the ending of counters back.
                family = CounterMetricFamily(
                    metric.name.removesuffix(_TOTAL), metric.help, labels=names
                )
            else:
                family = GaugeMetricFamily(metric.name, metric.help, labels=names)
            for labels, value in metric.samples:
                family.add_metric([labels[name] for name in names], value)
            yield family

    def describe(self) -> list[CounterMetricFamily]:
        """What is to come is not known before the node runs."""
        return []
