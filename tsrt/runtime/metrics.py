"""
The counters of a node as Prometheus text (exposition format 0.0.4).

Where Tailscale's own daemon has a metric for the same thing, it has its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from tsrt.counters import Counters
from tsrt.runtime.traffic import PathTraffic

PREFIX = "tailscaled_"
OWN_PREFIX = "tsrt_"


# By direction and reason: the parts and counters that have them.
_DROPPED: dict[str, dict[str, tuple[tuple[str, str], ...]]] = {
    "inbound": {
        "acl": (
            ("filter", "droppedRule"),
            ("filter", "droppedSource"),
            ("filter", "droppedNotLocal"),
        ),
        "link_local_unicast": (("filter", "droppedLinkLocal"),),
        "multicast": (("filter", "droppedMulticast"),),
        "too_short": (("filter", "droppedMalformed"),),
    },
    "outbound": {
        "acl": (("filter", "droppedOutbound"),),
        "error": (("datapath", "droppedNoPath"), ("datapath", "droppedNoRoute")),
    },
}


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    inside = ",".join(f'{key}="{text}"' for key, text in sorted(labels.items()))
    return f"{name}{{{inside}}} {value:g}" if inside else f"{name} {value:g}"


class Metric:
    """
    One metric with all of its values.

    @ivar kind: C{counter} or C{gauge}.
    @ivar help: one sentence.
    @ivar samples: labels and values.
    """

    def __init__(self, name: str, kind: str, help: str) -> None:
        self.name = name
        self.kind = kind
        self.help = help
        self.samples: list[tuple[dict[str, str], float]] = []

    def add(self, value: float, **labels: str) -> None:
        """Add a value."""
        self.samples.append((labels, value))

    def lines(self) -> Iterable[str]:
        """The metric as text; nothing while it has no value."""
        if not self.samples:
            return
        yield f"# HELP {self.name} {self.help}"
        yield f"# TYPE {self.name} {self.kind}"
        for labels, value in self.samples:
            yield _line(self.name, labels, value)


class MetricsSource:
    """Reads the counters of a running node when somebody asks."""

    def __init__(
        self,
        *,
        traffic: Callable[[], Iterable[PathTraffic]],
        counters: Mapping[str, Callable[[], Counters]],
        homeRegion: Callable[[], int],
        healthMessages: Callable[[], int],
        peers: Callable[[], int],
        routes: Callable[[], tuple[int, int]],
    ) -> None:
        """
        @param traffic: what was carried, by kind of path.
        @param counters: the counters of each part, by its name.
        @param routes: how many networks are advertised, and how many of them
            were approved; being an exit node is none.
        """
        self._traffic = traffic
        self._counters = counters
        self._homeRegion = homeRegion
        self._healthMessages = healthMessages
        self._peers = peers
        self._routes = routes

    def text(self) -> str:
        """All metrics as Prometheus reads them."""
        return "".join(
            f"{line}\n" for metric in self.metrics() for line in metric.lines()
        )

    def metrics(self) -> list[Metric]:
        """All metrics, with what they are at this moment."""
        names = (
            "inbound_bytes",
            "outbound_bytes",
            "inbound_packets",
            "outbound_packets",
        )
        metrics = []
        for name in names:
            direction, what = name.split("_")
            metric = Metric(
                f"{PREFIX}{name}_total", "counter", f"{what.capitalize()} {direction}."
            )
            metrics.append(metric)
        for carried in self._traffic():
            for metric, value in zip(metrics, carried[1:], strict=True):
                metric.add(value, path=carried.path)
        metrics += self._dropped()
        dropped = Metric(
            f"{OWN_PREFIX}dropped_total", "counter", "What was dropped, and why."
        )
        counted = Metric(
            f"{OWN_PREFIX}events_total", "counter", "What else was counted."
        )
        for part, read in sorted(self._counters.items()):
            for name, value in read().snapshot().items():
                if name.startswith("dropped"):
                    dropped.add(value, part=part, reason=name.removeprefix("dropped"))
                else:
                    counted.add(value, part=part, event=name)
        metrics += [dropped, counted]
        advertised, approved = self._routes()
        for name, help, value in (
            (
                "home_derp_region_id",
                "The home relay region; 0: none.",
                self._homeRegion(),
            ),
            ("health_messages", "How many things are wrong.", self._healthMessages()),
            ("advertised_routes", "Networks that are offered.", advertised),
            ("approved_routes", "Networks that are offered and approved.", approved),
        ):
            metric = Metric(PREFIX + name, "gauge", help)
            metric.add(value)
            metrics.append(metric)
        peers = Metric(f"{OWN_PREFIX}peers", "gauge", "Peers in the netmap.")
        peers.add(self._peers())
        metrics.append(peers)
        return metrics

    def _dropped(self) -> list[Metric]:
        """What was dropped, by the reasons that Tailscale has words for."""
        metrics = []
        for direction, reasons in _DROPPED.items():
            metric = Metric(
                f"{PREFIX}{direction}_dropped_packets_total",
                "counter",
                f"Packets {direction} that were dropped.",
            )
            for reason, sources in reasons.items():
                total = sum(
                    getattr(self._counters[part](), name)
                    for part, name in sources
                    if part in self._counters
                )
                metric.add(total, reason=reason)
            metrics.append(metric)
        return metrics
