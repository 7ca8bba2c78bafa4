"""How every chart of the page looks: quiet axes, no frame, room for the labels it has."""

from __future__ import annotations

from typing import Any, Final

from drl_ray_tracking.analysis.palette import GRID, INK, MUTED

FONT: Final = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'DejaVu Sans', sans-serif"


def axis(title: str = "", **more: Any) -> dict[str, Any]:
    """Returns an axis."""
    return {
        "title": {"text": title, "font": {"size": 12, "color": MUTED}, "standoff": 8},
        "tickfont": {"size": 11, "color": MUTED},
        "gridcolor": GRID,
        "zerolinecolor": "#D5D5D5",
        "zerolinewidth": 1,
        "linecolor": "#D5D5D5",
        "automargin": True,
        **more,
    }


def layout(x: dict[str, Any], y: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Returns the layout of a chart with these axes."""
    return {
        "font": {"family": FONT, "size": 12, "color": INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 52, "r": 16, "t": 12, "b": 44},
        "hoverlabel": {
            "bgcolor": "white",
            "bordercolor": "#D5D5D5",
            "font": {"color": INK, "size": 12},
            "align": "left",
        },
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"size": 12}},
        "showlegend": False,
        "xaxis": x,
        "yaxis": y,
        **more,
    }


def note(text: str, x: float, y: float, **more: Any) -> dict[str, Any]:
    """Returns a text at a place in data coordinates, without an arrow."""
    return {"text": text, "x": x, "y": y, "showarrow": False, "font": {"size": 11, "color": MUTED}, **more}


def line_at(value: float, axis_name: str = "y", **more: Any) -> dict[str, Any]:
    """Returns a line across the chart at a value of an axis."""
    along = "x" if axis_name.startswith("y") else "y"
    ends = {f"{along}0": 0, f"{along}1": 1, f"{along}ref": "paper"}
    at = axis_name[0]
    line = {"color": MUTED, "width": 1, "dash": "dot"}
    return {"type": "line", f"{at}0": value, f"{at}1": value, f"{at}ref": axis_name, **ends, "line": line, **more}
