"""A page as Markdown, for terminals, merge requests and flow artifacts, and its tables as CSV.

Pictures and charts are left out; every table and key number of the HTML is included with the same value. Text from
data is escaped for the format.
"""

import csv
import io
import re

from pipeline.report.blocks import KeyNumbers, Note, Page, Table, Value, is_blank

MOST_ROWS = 200
"""Upper limit of rows in Markdown; longer tables are cut and end with a note. CSV is never cut."""


def markdown_page(page: Page) -> str:
    """Write a page as Markdown: headings, key numbers, notes and tables."""
    parts = [f"# {_escaped(page.title)}", _escaped(page.subtitle)]
    parts.append("\n".join(f"- {_escaped(name)}: {_escaped(value)}" for name, value in page.provenance))
    for section in page.sections:
        blocks = [text for block in section.blocks if (text := _block(block))]
        if blocks:
            parts += [f"## {_escaped(section.title)}", _escaped(section.intro), *blocks]
    return "\n\n".join(part for part in parts if part) + "\n"


def csv_tables(page: Page) -> dict[str, str]:
    """Write every table of a page as CSV, ``{table name: text}``, numbers unrounded."""
    return {table.name: table_csv(table) for table in page.tables}


def table_csv(table: Table) -> str:
    """Write one table as CSV with a heading line; blanks are empty.

    Text that a spreadsheet would run as a formula gets a leading apostrophe.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([_inert(column.heading) for column in table.columns])
    writer.writerows([[_csv_cell(value) for value in row.cells] for row in table.rows])
    return buffer.getvalue()


def table_markdown(table: Table) -> str:
    """Write one table as Markdown; the best of a column in bold."""
    best = table.best_cells()
    numeric = [table.numeric(column) for column in range(len(table.columns))]
    lines = [
        _line([_escaped(column.heading) for column in table.columns]),
        _line(["---:" if right else "---" for right in numeric]),
    ]
    for row in range(min(len(table.rows), MOST_ROWS)):
        cells = [_escaped(table.text(row, column)) for column in range(len(table.columns))]
        lines.append(_line([f"**{cell}**" if (row, at) in best else cell for at, cell in enumerate(cells)]))
    text = "\n".join(lines)
    if len(table.rows) > MOST_ROWS:
        text += f"\n\n{MOST_ROWS} of {len(table.rows):,} rows are shown; the CSV has all."
    return text


def _block(block: object) -> str:
    if isinstance(block, KeyNumbers):
        return "\n".join(
            f"- {_escaped(number.label)}: **{_escaped(number.value)}**"
            + (f" ({_escaped(number.detail)})" if number.detail else "")
            for number in block.numbers
        )
    if isinstance(block, Note):
        return f"> {_escaped(block.text)}"
    if isinstance(block, Table):
        heading = f"### {_escaped(block.title)}" if block.title else ""
        parts = [heading, table_markdown(block), _escaped(block.caption)]
        return "\n\n".join(part for part in parts if part)
    return ""


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _escaped(text: str) -> str:
    # "&" and "<" as entities, because Markdown passes HTML through
    flat = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_\[\]|~>])", r"\\\1", flat)


def _csv_cell(value: Value) -> str:
    if value is None or is_blank(value):
        return ""
    return _inert(value) if isinstance(value, str) else repr(value)


def _inert(text: str) -> str:
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
