"""One self-contained HTML file from a page: styles, scripts, pictures and the plotting library inside it.

It opens from disk without a network, and everything that comes from data is escaped: by the template engine in
markup and attributes, and as JSON without ``<`` in scripts. It formats the blocks of a page without interpreting them.
"""

from functools import cache
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pipeline.report.blocks import Chart, Gallery, Page, Table, is_blank

PLOTLY = resources.files("pipeline.report").joinpath("vendor/plotly-cartesian.min.js")
"""The part of plotly.js that our charts use; the whole bundle takes a browser a second to read."""


def html_page(page: Page) -> str:
    """Write a page as HTML; the same page gives the same text.

    The plotting library (1.5 MB) is inlined once, and only when the page has a chart.
    """
    blocks = [block for section in page.sections for block in section.blocks]
    has_charts = any(isinstance(block, Chart) for block in blocks)
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            page=page,
            anchors=_anchors(blocks),
            groups=_groups(blocks),
            plotly=Markup(_plotly()) if has_charts else "",
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("pipeline.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["script_json"] = _script_json
    environment.filters["sort_key"] = _sort_key
    return environment


@cache
def _plotly() -> str:
    # Not executed while the page loads, but by page.js afterwards. A closing tag inside would end the element.
    return PLOTLY.read_text(encoding="utf-8").replace("</script", "<\\/script")


def _script_json(text: str) -> Markup:
    # JSON may hold any string; without "<" it can neither close its element nor open a comment
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))


def _sort_key(value: object) -> str:
    if not isinstance(value, int | float) or is_blank(value):
        return ""
    return repr(value)


def _anchors(blocks: list) -> frozenset[str]:
    return frozenset(
        picture.anchor for block in blocks if isinstance(block, Gallery) for picture in block.pictures
    )


def _groups(blocks: list) -> tuple[str, ...]:
    """Wells in the order in which they first appear in tables and galleries."""
    groups: dict[str, None] = {}
    for block in blocks:
        if isinstance(block, Table):
            groups.update(dict.fromkeys(row.group for row in block.rows if row.group))
        elif isinstance(block, Gallery):
            groups.update(dict.fromkeys(picture.group for picture in block.pictures if picture.group))
    return tuple(groups)
