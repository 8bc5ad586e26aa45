"""A hook of the documentation site: every job with its fields, written from the types themselves."""

from collections.abc import Iterator
from typing import Any

from pydantic import TypeAdapter

from flows import jobs

JOBS = {
    "platelayer segment": jobs.SegmentJob,
    "platelayer train": jobs.TrainJob,
    "platelayer serve": jobs.WatchJob,
}
MARK = "<!-- jobs -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the tables of all jobs in the place of the mark."""
    if MARK not in markdown:
        return markdown
    return markdown.replace(MARK, "\n".join(line for name, kind in JOBS.items() for line in _job(name, kind)))


def _job(name: str, kind: Any) -> Iterator[str]:
    schema = TypeAdapter(kind).json_schema()
    yield f"## {kind.__name__}: `{name}`\n\n{schema.get('description', '')}\n"
    yield from _table(schema, "", schema.get("$defs", {}))
    yield ""


def _table(schema: dict[str, Any], prefix: str, definitions: dict[str, Any]) -> Iterator[str]:
    """One row per field; the fields of a table inside the job follow under their full name."""
    if not prefix:
        yield "| field | type | default | meaning |\n|---|---|---|---|"
    for name, field in schema.get("properties", {}).items():
        inner = definitions.get(str(field.get("$ref", "")).rpartition("/")[2], {})
        if "properties" in inner:
            yield from _table(inner, f"{prefix}{name}.", definitions)
            continue
        default = "required" if name in schema.get("required", ()) else f"`{field.get('default')!r}`"
        meaning = " ".join(str(field.get("description", "")).split()).replace("|", "\\|")
        yield f"| `{prefix}{name}` | {_type(field | inner)} | {default} | {meaning} |"


def _type(field: dict[str, Any]) -> str:
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "anyOf" in field:
        return " or ".join(_type(choice) for choice in field["anyOf"])
    return str(field.get("type", field.get("const", "any")))
