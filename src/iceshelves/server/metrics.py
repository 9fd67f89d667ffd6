"""Figures for Prometheus, under the original's seven names.

Requests are counted as they are answered.  Everything about deployments is read from the database when it is
asked for, so it survives a restart, and it is that of the caller's tenant.  Several servers on one database
all report the same deployments: take the maximum over them, not the sum.

Prometheus' client is imported with the first question: it brings a web server along, and start-up counts.
"""

from __future__ import annotations

import bisect
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from iceshelves.store.database import Database
from iceshelves.store.queries import figures
from iceshelves.store.queries.pages import Row

if TYPE_CHECKING:
    from prometheus_client.core import Metric

MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
#: upper bounds in seconds
REQUEST_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
DEPLOYMENT_BUCKETS: Final = (1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
# a transaction may become visible a little after the moment that it writes down
_OVERLAP: Final = timedelta(minutes=5)


@dataclass(slots=True)
class Durations:
    """How many there were, how long they took together, and how many fell under each bound."""

    bounds: Sequence[float]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def add(self, seconds: float) -> None:
        """Note one."""
        self.counts[bisect.bisect_left(self.bounds, seconds)] += 1
        self.total += seconds

    @property
    def number(self) -> int:
        """How many there were."""
        return sum(self.counts)

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts by upper bound, as Prometheus has them."""
        names = [*(str(bound) for bound in self.bounds), "+Inf"]
        sums = [sum(self.counts[: place + 1]) for place in range(len(self.counts))]
        return [(name, float(number)) for name, number in zip(names, sums, strict=True)]


#: durations by the values of two labels
Table = dict[tuple[str, str], Durations]


class RequestFigures:
    """Requests to this server, by method and route."""

    def __init__(self) -> None:
        self._answered: Table = {}
        self._lock = threading.Lock()

    def count(self, method: str, endpoint: str, seconds: float) -> None:
        """Note a request; ``endpoint`` is a route, never a path with names in it."""
        with self._lock:
            durations = self._answered.get((method, endpoint))
            if durations is None:
                durations = self._answered[method, endpoint] = Durations(REQUEST_BUCKETS)
            durations.add(seconds)

    def collect(self) -> Iterable[Metric]:
        """The figures in Prometheus' terms."""
        with self._lock:
            labels = ["method", "endpoint"]
            yield _counter("iceshelves_http_requests", "Requests answered", labels, self._answered)
            name = "iceshelves_http_request_duration_seconds"
            yield _histogram(name, "Seconds until a request was answered", labels, self._answered)


class TenantFigures:
    """The deployments, clusters and eggs of one tenant, brought up to date when they are asked for."""

    def __init__(self, database: Database, tenant_id: int) -> None:
        self._database = database
        self._tenant_id = tenant_id
        self._lock = threading.Lock()
        self._seen: dict[str, datetime] = {}
        self._ended: Table = {}

    def collect(self) -> Iterable[Metric]:
        """The figures in Prometheus' terms."""
        from prometheus_client.core import GaugeMetricFamily

        with self._lock:
            counts = self._refresh()
            labels = ["status", "type"]
            yield _counter("iceshelves_deployments", "Deployments that ended", labels, self._ended)
            name = "iceshelves_deployment_duration_seconds"
            yield _histogram(name, "Seconds from the start of a deployment to its end", labels, self._ended)
        gauges = {
            "iceshelves_active_deployments": ("Deployments with work under way", counts.active),
            "iceshelves_cluster_count": ("Managed clusters", counts.clusters),
            "iceshelves_egg_count": ("Eggs that can be deployed", counts.eggs),
        }
        for name, (words, value) in gauges.items():
            yield GaugeMetricFamily(name, words, value=value)

    def _refresh(self) -> figures.Counts:
        """Read what has ended since the last time; the overlap is told apart by id."""
        newest = max(self._seen.values(), default=None)
        since = None if newest is None else newest - _OVERLAP
        with self._database.read() as session:
            ended = figures.finished_since(session, self._tenant_id, since)
            counts = figures.counts(session, self._tenant_id)
        for row in ended:
            if row.id not in self._seen and row.kind == "deploy":
                self._note(row)
        self._seen = {row.id: row.finished_at for row in ended}
        return counts

    def _note(self, row: Row) -> None:
        status = "completed" if row.status == "succeeded" else str(row.status)
        begun = row.started_at or row.finished_at  # one cancelled before its turn took no time
        durations = self._ended.setdefault((status, str(row.deployment_type)), Durations(DEPLOYMENT_BUCKETS))
        durations.add(max(0.0, (row.finished_at - begun).total_seconds()))


class Figures:
    """All figures of this server."""

    def __init__(self, database: Database) -> None:
        self.requests = RequestFigures()
        self._database = database
        self._tenants: dict[int, TenantFigures] = {}
        self._lock = threading.Lock()

    def text(self, tenant_id: int) -> bytes:
        """The figures that ``tenant_id`` may see, as Prometheus reads them."""
        from prometheus_client import CollectorRegistry, generate_latest

        with self._lock:
            tenant = self._tenants.setdefault(tenant_id, TenantFigures(self._database, tenant_id))
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self.requests)
        registry.register(tenant)
        return generate_latest(registry)


def _counter(name: str, words: str, labels: list[str], table: Table) -> Metric:
    from prometheus_client.core import CounterMetricFamily

    family = CounterMetricFamily(name, words, labels=labels)
    for values, durations in table.items():
        family.add_metric(values, durations.number)
    return family


def _histogram(name: str, words: str, labels: list[str], table: Table) -> Metric:
    from prometheus_client.core import HistogramMetricFamily

    family = HistogramMetricFamily(name, words, labels=labels)
    for values, durations in table.items():
        family.add_metric(values, durations.buckets(), durations.total)
    return family
