"""The folder `reports/` beside the plates of a watched place: a page per plate and an index.

The index is rewritten after every plate from the stored outcomes, so that any server can write it.
"""

import base64
import io
import json
from urllib.parse import quote

from PIL import Image

from flows.execution.parallel import parallel_map
from flows.execution.versions import written_by
from flows.scheduling.watch import Outcome, Watch
from pipeline.report.blocks import Gallery, Page
from pipeline.report.index_page import PlateLine, index_page
from pipeline.report.page import html_page
from pipeline.store.ledger import safe_name
from pipeline.store.places.address import Address

FOLDER = "reports"
"""Folder of the pages, below the output root of a watch."""

THUMBNAIL_PX = 400
"""Longest side of the picture of a plate on the index."""


def reports(watch: Watch) -> Address:
    """Folder of the pages of a watch."""
    return watch.root.child(f"{FOLDER}/{watch.name}")


def write_plate_page(watch: Watch, plate: str, page: Page, data: bytes) -> str:
    """Write the page of a plate and its picture for the index; return the address of the page."""
    place, name = reports(watch), safe_name(plate)
    place.write_bytes(f"{name}.html", data)
    if picture := _first_picture(page):
        place.write_bytes(f"{name}.webp", picture)
    return str(place.child(f"{name}.html"))


def write_index(watch: Watch) -> str:
    """Write the index over all plates that were tried; return its address."""
    folders = watch.state.child("plates").children()
    waits = not watch.root.is_local
    texts = parallel_map(
        lambda name: watch.state.read_bytes_or_none(f"plates/{name}/outcome.json"), folders, waits=waits
    )
    outcomes = [Outcome(**json.loads(text)) for text in texts if text]
    lines = parallel_map(lambda outcome: _line(watch, outcome), outcomes, waits=waits)
    page = index_page(str(watch.place), lines, provenance=written_by())
    reports(watch).write_bytes("index.html", html_page(page).encode())
    return str(reports(watch).child("index.html"))


def _line(watch: Watch, outcome: Outcome) -> PlateLine:
    place, name = reports(watch), safe_name(outcome.plate)
    picture = place.read_bytes_or_none(f"{name}.webp")
    return PlateLine(
        name=outcome.plate, status=outcome.status, ended=outcome.ended, images=outcome.images,
        objects=outcome.objects, failures=len(outcome.failures), drift=tuple(outcome.drift),
        problems=tuple(outcome.problems), scores=outcome.scores, link=f"{quote(name)}.html" if outcome.report else "",
        picture=f"{quote(name)}.webp" if picture else "",
        picture_px=Image.open(io.BytesIO(picture)).size if picture else (1, 1),
    )  # fmt: skip


def _first_picture(page: Page) -> bytes | None:
    """The first picture of a page, scaled down; None where it has none."""
    galleries = (block for section in page.sections for block in section.blocks if isinstance(block, Gallery))
    source = next((picture.source for gallery in galleries for picture in gallery.pictures), "")
    if not source:
        return None
    image = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
    image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=80, method=4)
    return buffer.getvalue()
