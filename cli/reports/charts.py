"""Charts as SVG that stands in an HTML page: colours come from the page's style, numbers show under the pointer.

All that a report needs, and nothing that has to be loaded (docs/decisions/0047).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from cli.reports.markup import Html, joined, tag
from topology.sinks import Value

WIDTH, HEIGHT = 720, 150
#: Room for the scale at the left and the times below.
LEFT, BELOW, ABOVE = 64, 18, 6

Course = Sequence[Value | None]
Written = Callable[[Value], str]


def bars(
    title: str,
    times: Sequence[str],
    up: Mapping[str, Course],
    written: Written,
    *,
    down: Mapping[str, Course] | None = None,
) -> Html:
    """Stacked bars, one a window; ``down`` hang from the same line. The class of a course is ``series-NAME``."""
    down = down or {}
    highest = _highest(up)
    lowest = _highest(down)
    span = (highest + lowest) or 1
    plot = HEIGHT - ABOVE - BELOW
    zero = ABOVE + plot * highest / span
    step = (WIDTH - LEFT) / max(1, len(times))
    gap = min(2.0, step / 4)
    parts: list[Html] = [_line(zero), *_scale(highest, lowest, zero, plot, span, written), *_times(times)]
    for at, time in enumerate(times):
        left = LEFT + at * step
        drawn = [
            *_stack(up, at, left, step - gap, zero, -plot / span),
            *_stack(down, at, left, step - gap, zero, plot / span),
        ]
        if drawn:
            said = ", ".join(
                f"{name} {written(value)}"
                for name, course in (*up.items(), *down.items())
                if (value := course[at])
            )
            parts.append(tag("g", tag("title", f"{time}: {said}"), *drawn))
    return _svg(title, HEIGHT, parts)


def strip(title: str, times: Sequence[str], ratios: Course, written: Written) -> Html:
    """One cell a window, coloured by how much of it is up; a window of which nothing is known is hatched."""
    height = 22
    step = WIDTH / max(1, len(times))
    cells = [
        tag(
            "rect",
            tag("title", f"{time}: {'not known' if ratio is None else written(ratio)}"),
            x=_n(at * step),
            y="0",
            width=_n(max(0.5, step - min(1.0, step / 5))),
            height=str(height),
            rx="1.5",
            class_=_state(ratio),
        )
        for at, (time, ratio) in enumerate(zip(times, ratios, strict=True))
    ]
    return _svg(title, height, cells)


def _state(ratio: Value | None) -> str:
    if ratio is None:
        return "state-unknown"
    if ratio >= 0.9995:
        return "state-up"
    return "state-partly" if ratio >= 0.9 else "state-down"


def _svg(title: str, height: int, parts: Sequence[Html]) -> Html:
    return tag(
        "svg",
        *parts,
        viewBox=f"0 0 {WIDTH} {height}",
        role="img",
        aria_label=title,
        preserveAspectRatio="none" if height < HEIGHT else "xMidYMid",
        class_="strip" if height < HEIGHT else "chart",
    )


def _stack(
    courses: Mapping[str, Course], at: int, left: float, width: float, zero: float, scale: float
) -> list[Html]:
    drawn: list[Html] = []
    y = zero
    for name, course in courses.items():
        value = course[at]
        if not value:
            continue
        height = max(1.0, abs(value * scale))
        top = y - height if scale < 0 else y
        drawn.append(
            tag(
                "rect",
                x=_n(left),
                y=_n(top),
                width=_n(max(0.5, width)),
                height=_n(height),
                class_=f"series-{name}",
            )
        )
        y = top if scale < 0 else top + height
    return drawn


def _highest(courses: Mapping[str, Course]) -> float:
    return max((sum(value or 0 for value in each) for each in zip(*courses.values(), strict=True)), default=0)


def _scale(
    highest: float, lowest: float, zero: float, plot: float, span: float, written: Written
) -> list[Html]:
    """The two ends, and zero."""
    ends = [(highest, zero - plot * highest / span), (0, zero), (lowest, zero + plot * lowest / span)]
    labels: list[Html] = []
    last: float | None = None
    for value, y in ends:
        if value == 0 and y != zero:
            continue
        if last is None or y - last > 13:
            whole = int(value) if float(value).is_integer() else value
            labels.append(tag("text", written(whole), x=str(LEFT - 8), y=_n(y + 4), class_="scale"))
            last = y
    return labels


def _times(times: Sequence[str]) -> list[Html]:
    if not times:
        return []
    last = len(times) - 1
    step = (WIDTH - LEFT) / len(times)
    places = [(0, "start"), (last // 2, "middle"), (last, "end")] if last >= 4 else [(0, "start")]
    return [
        tag(
            "text",
            times[at],
            x=_n(LEFT + (at + {"start": 0.0, "middle": 0.5, "end": 1.0}[anchor]) * step),
            y=str(HEIGHT - 3),
            text_anchor=anchor,
            class_="time",
        )
        for at, anchor in places
    ]


def _line(y: float) -> Html:
    return tag("line", x1=str(LEFT), x2=str(WIDTH), y1=_n(y), y2=_n(y), class_="axis")


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def legend(names: Mapping[str, str]) -> Html:
    """What the colours mean: each class and its words."""
    return tag(
        "p",
        joined(tag("span", tag("i", class_=f"swatch series-{name}"), words) for name, words in names.items()),
        class_="legend",
    )
