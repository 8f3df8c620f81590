"""One self-contained HTML file from a plan: no scripts, nothing fetched, light and dark."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infermix.errors import InputError
from infermix.plan.result import Plan
from infermix.report import charts, day, words
from infermix.report.day_charts import day_pictures
from infermix.report.range_charts import power_plot, tornado, vendor_plot

if TYPE_CHECKING:
    import jinja2
    from markupsafe import Markup


def write_report(plan: Plan, path: str | Path) -> None:
    """Write the report of a plan as one HTML file.

    Raises
    ------
    InputError
        The file cannot be written, or the extra ``report`` is not installed.
    """
    text = render(plan)
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as fault:
        raise InputError(f"cannot be written: {fault.strerror}", where=str(path)) from None


def render(plan: Plan) -> str:
    """The report of a plan as the text of an HTML file."""
    return _environment().get_template("report.html").render(plan=plan, words=words, day=day, **_charts(plan))


def _charts(plan: Plan) -> dict[str, Any]:
    return {
        "shades": charts.shades(plan),
        "fleet_bars": charts.fleet_bars(plan),
        "whiskers": charts.whiskers(plan),
        "cdfs": charts.cdfs(plan),
        "cost_bars": charts.cost_bars(plan),
        "frontiers": charts.frontiers(plan),
        "pictures": day_pictures(plan),
        "tornado": tornado(plan),
        "vendor_plot": vendor_plot(plan),
        "power_plot": power_plot(plan),
    }


def _breakable(text: str) -> Markup:
    """An id that may break after its slashes, dots and underscores."""
    from markupsafe import Markup, escape

    return Markup(str(escape(text)).replace("/", "/<wbr>").replace("_", "_<wbr>").replace(".", ".<wbr>"))


def _environment() -> jinja2.Environment:
    try:
        import jinja2
    except ImportError:
        raise InputError("the report needs jinja2", mend="install infermix[report]") from None
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        money=words.money,
        share=words.share,
        seconds=words.seconds,
        digits=words.digits,
        tokens=words.tokens,
        attained=words.attained,
        kind=words.kind_of,
        breakable=_breakable,
        finite=lambda value: value is not None and math.isfinite(value),
    )
    return environment
