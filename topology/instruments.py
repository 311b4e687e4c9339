"""How a metric is declared: a method whose name, labels and words are the metric's (docs/decisions/0040).

    class Metrics(Instruments):
        @counter(remedy="Nothing: it is traffic.")
        def events_received(self, *, group: str) -> None:
            "Events that a group read."

    Metrics(registry).events_received(group="rollups").inc(3)     # eventsink_events_received_total{group="rollups"} 3

A name or a label that is not declared so fails the type check. Nothing is global: metrics are made on the registry of a
process, each class once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Concatenate, Generic, Literal, ParamSpec, TypeAlias, TypeVar, overload

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

PREFIX = "eventsink_"

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]
P = ParamSpec("P")
#: What is declared as a method, and what calling it returns.
M = TypeVar("M", bound=MetricWrapperBase)


class Family(Generic[P, M]):
    """A metric on a registry. Called with its labels, it is the one series of them."""

    def __init__(self, metric: M, labels: Sequence[str]) -> None:
        self._metric = metric
        self._labels = labels
        #: prometheus-client compares the names of the labels at each look-up.
        self._series: dict[tuple[object, ...], M] = {}

    def __call__(self, *args: P.args, **labels: P.kwargs) -> M:
        """The series with these labels; it is exported from the first call on."""
        if not self._labels:
            return self._metric
        values = tuple([labels[name] for name in self._labels])
        series = self._series.get(values)
        if series is None:
            series = self._series[values] = self._metric.labels(*values)
        return series

    def clear(self) -> None:
        """Export none of its series until they are set again."""
        self._series.clear()
        self._metric.clear()


class Declared(Generic[P, M]):
    """A metric of a class. ``name`` is what is scraped, ``meaning`` and ``remedy`` are for people."""

    name: str

    def __init__(
        self, method: Callable[Concatenate[Any, P], None], kind: Kind, make: Callable[..., M], remedy: str
    ) -> None:
        self.kind = kind
        self.meaning = " ".join((inspect.getdoc(method) or "").split())
        self.remedy = remedy
        self.labels: Sequence[str] = tuple(list(inspect.signature(method).parameters)[1:])
        self._make = make

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = f"{PREFIX}{name}_total" if self.kind == "counter" else f"{PREFIX}{name}"
        self._attribute = name

    @overload
    def __get__(self, instance: None, owner: type) -> Declared[P, M]: ...
    @overload
    def __get__(self, instance: Instruments, owner: type) -> Family[P, M]: ...
    def __get__(self, instance: Instruments | None, owner: type) -> Declared[P, M] | Family[P, M]:
        if instance is None:
            return self
        family: Family[P, M] = instance.families[self._attribute]
        return family

    def made(self, registry: CollectorRegistry) -> Family[P, M]:
        """This metric on a registry. What is scraped says what to do, too."""
        words = f"{self.meaning} {self.remedy}"
        return Family(self._make(self.name, words, self.labels, registry=registry), self.labels)


class Instruments:
    """Some metrics of a process, all registered as soon as it is made. Those without labels are exported as 0."""

    #: The commands whose ``/metrics`` has them.
    shown_by: Sequence[str] = ()

    def __init__(self, registry: CollectorRegistry) -> None:
        self.families: dict[str, Any] = {
            declared._attribute: declared.made(registry) for declared in declarations(type(self))
        }


def declarations(of: type[Instruments]) -> Sequence[Declared[..., Any]]:
    """What a class declares, in order."""
    return [each for each in vars(of).values() if isinstance(each, Declared)]


def counter(*, remedy: str) -> Callable[[Callable[Concatenate[Any, P], None]], Declared[P, Counter]]:
    """Declare a number that only grows; its name ends with ``_total``."""
    return lambda method: Declared(method, "counter", Counter, remedy)


def gauge(*, remedy: str) -> Callable[[Callable[Concatenate[Any, P], None]], Declared[P, Gauge]]:
    """Declare a number that goes up and down."""
    return lambda method: Declared(method, "gauge", Gauge, remedy)


def histogram(
    *, buckets: Sequence[float], remedy: str
) -> Callable[[Callable[Concatenate[Any, P], None]], Declared[P, Histogram]]:
    """Declare a distribution; ``buckets`` are the upper bounds."""

    return lambda method: Declared(method, "histogram", partial(Histogram, buckets=buckets), remedy)
