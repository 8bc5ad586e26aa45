"""The page of a run: the numbers that go in come out, escaped, linked, and the same every time."""

import csv
import io
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from pipeline.errors import BadArgument
from pipeline.report.markdown import csv_tables, markdown_page
from pipeline.report.page import html_page
from pipeline.report.run.numbers import Run, per_image
from pipeline.report.run.page import run_page, run_report
from pipeline.report.run.pictures import drawn_first
from pipeline.report.run.seams import seam_quality

EVIL = "<script>alert('x')</script>"


class Reader(HTMLParser):
    """Collects what the tests ask about."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.links, self.text = [], [], [], []
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append((tag, found))
        self.inside = tag if tag in ("script", "style") else ""
        if "id" in found:
            self.ids.append(found["id"])
        if tag == "a":
            self.links.append(found["href"])

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if not self.inside:
            self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


def plate(rows="AB", columns=4, *, image_name=None, side=64, objects=6):
    """Object table, listing and pictures of a small plate; B/2/0 failed, A/3/0 is empty."""
    rng = np.random.default_rng(0)
    tables, listing, shown = [], [], {}
    for row in rows:
        for column in range(1, columns + 1):
            name = f"{row}/{column}/0" if image_name is None else image_name(row, column)
            failed = (row, column) == ("B", 2)
            listing.append(
                {
                    "image": name, "row": row, "column": str(column), "field": "0", "height_px": side,
                    "width_px": side, "status": "set aside" if failed else "done",
                    "reason": "chunk 0.1 is corrupt" if failed else "", "failed_tiles": int(failed), "retries": 1,
                }
            )  # fmt: skip
            if failed:
                continue
            number = 0 if (row, column) == ("A", 3) else objects
            stack = np.zeros((2, side, side), np.uint32)
            for label in range(1, number + 1):
                y, x = divmod(label - 1, 3)
                stack[label % 2, 4 + 16 * y : 18 + 16 * y, 2 + 14 * x : 18 + 14 * x] = label
            shown[name] = (rng.integers(0, 999, (side, side), dtype=np.uint16), None, stack)
            tables.append(object_table(stack, name))
    return pd.concat(tables, ignore_index=True), pd.DataFrame(listing), shown


def object_table(stack, name):
    rows = []
    for label in range(1, int(stack.max()) + 1):
        layer, y, x = np.nonzero(stack == label)
        rows.append(
            {
                "image": name, "label": label, "layer": layer[0], "centroid_y": y.mean(), "centroid_x": x.mean(),
                "bbox_y0": y.min(), "bbox_y1": y.max() + 1, "bbox_x0": x.min(), "bbox_x1": x.max() + 1,
                "area_px": y.size, "area_um2": y.size / 4, "eccentricity": 0.5, "overlap_px": 10 * (label % 2),
                "intensity_mean_DAPI": 100.0 + label, "intensity_mean_GFP": 7.0,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


FACTS = {
    "run": "3f9a", "output": "s3://screen/p1.zarr", "segmenter": "worms",
    "stages": {"predict": {"seconds": 8.0, "px": 16_000_000, "pieces": 4}},
    "failures": [{"image": "B/2/0", "stage": "predict", "where": "tile (0, 1)", "reason": "chunk 0.1 is corrupt"}],
    "job": {"tiling": {"core": 10240}}, "versions": {"numpy": "2.4.6"}, "images": {"A/1/0": {"objects": 6}},
}  # fmt: skip


def a_run(**changes):
    objects, images, shown = plate()
    run = Run(**({"title": "Plate 1", "objects": objects, "images": images, "facts": FACTS} | changes))
    return run, shown


def test_run_page_holds_every_number():
    run, shown = a_run()
    words = Reader(run_report(run, picture=shown.get)).words
    assert "7 of 8" in words
    assert f"Objects {len(run.objects)}" in words
    first = words[
        words.index("Look at these first") : words.index("Pictures", words.index("Look at these first"))
    ]
    assert "B/2/0 B02 set aside" in first
    assert "A/3/0 A03 no objects" in first
    assert "tile (0, 1)" in words
    assert "s3://screen/p1.zarr" in words
    assert "tiling.core 10240" in words
    assert "predict 8.0 16.0 2.0 4" in words


def test_every_row_of_a_done_image_links_to_its_picture():
    run, shown = a_run()
    read = Reader(run_report(run, picture=shown.get))
    pictures = {found["id"] for tag, found in read.tags if tag == "figure" and "id" in found}
    links = {href[1:] for href in read.links if href.startswith("#image-")}
    assert links <= pictures
    assert len(links) == len(shown)
    assert len(read.ids) == len(set(read.ids))
    assert all(href.startswith("#") for href in read.links)


def test_pages_need_no_network():
    run, shown = a_run()
    read = Reader(run_report(run, picture=shown.get))
    assert not [found for tag, found in read.tags if tag == "script" and "src" in found]
    sources = [found["src"] for tag, found in read.tags if tag == "img"]
    assert sources
    assert all(source.startswith("data:image/") for source in sources)
    assert [found["href"] for tag, found in read.tags if tag == "link"] == ["data:,"]


def test_the_plotting_library_is_there_once_and_only_where_there_is_a_chart():
    run, shown = a_run()
    assert run_report(run, picture=shown.get).count('id="plotly"') == 1
    objects, images, _ = plate(rows="A", columns=1, objects=0)
    plain = run_report(
        Run(title="x", objects=objects.reindex(columns=run.objects.columns), images=images, facts={})
    )
    assert 'id="plotly"' not in plain
    assert len(plain) < 40_000


def test_the_same_input_gives_the_same_page():
    run, shown = a_run()
    assert run_report(run, picture=shown.get) == run_report(run, picture=shown.get)


def test_a_run_without_objects_is_a_page():
    run, shown = a_run()
    empty = Run(title="x", objects=run.objects.iloc[:0], images=run.images, facts={})
    assert "Objects 0" in Reader(run_report(empty, picture=shown.get)).words


def test_a_single_image_without_a_place():
    objects, _, shown = plate(rows="A", columns=1)
    objects = objects.assign(image="image")
    run = Run(title="slide", objects=objects, images=pd.DataFrame({"image": ["image"]}), facts={})
    page = run_page(run, picture=lambda name: shown["A/1/0"])
    assert "plate" not in [section.name for section in page.sections]
    assert "failed tiles" in markdown_page(page)


def test_seams_are_a_section_with_pictures():
    run, shown = a_run()
    seams = seam_quality(run.objects, dict.fromkeys(run.images["image"], (64, 64)), core_px=16)
    described = Run(title=run.title, objects=run.objects, images=run.images, facts={}, seams=seams)
    asked = []

    def window(name, y0, y1, x0, x1):
        asked.append((y0, y1, x0, x1))
        grey, _, stack = shown[name]
        return grey[y0:y1, x0:x1], stack[:, y0:y1, x0:x1]

    words = Reader(run_report(described, picture=shown.get, window=window)).words
    assert "Seam quality" in words
    assert len(asked) == len(seams.worst) > 0
    assert all(0 <= y0 < y1 <= 64 and 0 <= x0 < x1 <= 64 for y0, y1, x0, x1 in asked)


def test_per_image_numbers():
    run, _ = a_run()
    _, table = per_image(run)
    assert np.isnan(table.loc["B/2/0", "objects"])
    assert table.loc["A/3/0", "objects"] == 0
    assert table.loc["A/1/0", "overlapping"] == 0.5
    stack = plate()[2]["A/1/0"][2]
    areas = [(stack == label).sum() / 4 for label in range(1, 7)]
    assert table.loc["A/1/0", "area"] == np.median(areas)
    assert table.loc["A/1/0", "covered"] == pytest.approx((sum(areas) * 4 - 15) / 64**2)
    assert table.loc["A/1/0", "intensity_DAPI"] == 103.5


def test_an_image_that_is_not_listed_is_refused():
    run, _ = a_run()
    with pytest.raises(BadArgument, match="first 'A/1/0'"):
        Run(title="x", objects=run.objects, images=run.images[run.images["image"] != "A/1/0"], facts={})


def test_pictures_that_are_not_there_are_counted():
    run, shown = a_run()
    gallery = Reader(run_report(run, picture=lambda name: None if name == "A/1/0" else shown[name])).words
    assert "1 image without a picture here" in gallery


def test_first_fields_of_every_well_are_drawn_first():
    names = ["A/1/0", "A/1/1", "A/2/0", "A/2/1"]
    wells = {name: name[:3] for name in names}
    assert drawn_first(names, wells, 3) == ["A/1/0", "A/1/1", "A/2/0"]
    assert drawn_first(names, wells, 2) == ["A/1/0", "A/2/0"]


def test_names_with_markup_are_escaped_everywhere():
    objects, images, shown = plate(image_name=lambda row, column: f"{EVIL}{row}{column}")
    objects = objects.rename(columns={"intensity_mean_GFP": f"intensity_mean_{EVIL}"})
    images = images.assign(row=EVIL + images["row"])
    facts = {
        EVIL: EVIL,
        "job": {EVIL: {"a": EVIL}},
        "failures": [{EVIL: EVIL}],
        "stages": {EVIL: {"seconds": 1}},
    }
    text = run_report(Run(title=EVIL, objects=objects, images=images, facts=facts), picture=shown.get)
    assert "<script>alert" not in text
    assert Reader(text).words.count("alert('x')") > 20


def test_csv_has_the_numbers_of_the_tables():
    page = run_page(a_run()[0])
    texts = csv_tables(page)
    assert set(texts) == {table.name for table in page.tables}
    rows = list(csv.DictReader(io.StringIO(texts["images"])))
    assert [row["image"] for row in rows][:2] == ["A/1/0", "A/2/0"]
    assert float(rows[0]["objects"]) == 6


def test_html_is_well_formed():
    run, shown = a_run()
    text = html_page(run_page(run, picture=shown.get))
    body = re.sub(r"<script.*?</script>|<style.*?</style>", "", text, flags=re.S)
    for tag in ("div", "section", "figure", "table", "tr", "td", "svg", "ul", "dl", "details"):
        assert len(re.findall(rf"<{tag}[\s>]", body)) == body.count(f"</{tag}>"), tag


def test_every_table_has_a_name_of_its_own():
    names = [table.name for table in run_page(a_run()[0]).tables]
    assert len(names) == len(set(names))


def test_a_failure_of_the_record_is_never_hidden_by_the_listing():
    run, _ = a_run()
    fine = run.images.assign(status="done", failed_tiles=0)
    text = markdown_page(run_page(Run(title="x", objects=run.objects, images=fine, facts=FACTS)))
    assert "- Failures: **1** (named below)" in text
    clean = markdown_page(
        run_page(Run(title="x", objects=run.objects, images=fine, facts={"retries": {"join": 3}}))
    )
    assert "- Failures: **none** (3 retried)" in clean
