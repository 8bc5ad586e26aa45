"""Reports in a real browser: no error on the console, no request to a network, quick, small, and usable.

Headless Chromium is driven over its debugging pipe, so no driver is needed beside the browser itself.
"""

import base64
import fcntl
import json
import os
import shutil
import subprocess
import time

import numpy as np
import pandas as pd
import pytest
from plotly.offline import get_plotlyjs_version
from scipy.ndimage import gaussian_filter

from pipeline.metrics.evaluation import evaluate_dataset
from pipeline.metrics.overlap import overlap
from pipeline.report.evaluation.assessment import Assessment
from pipeline.report.evaluation.page import evaluation_report
from pipeline.report.page import PLOTLY
from pipeline.report.run.numbers import Run
from pipeline.report.run.page import run_report
from pipeline.report.run.seams import seam_quality

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-pipe",
)  # fmt: skip

MOST_BYTES = 15_000_000
MOST_SECONDS = 2.0
PHONE, DESKTOP = 390, 1280


class Browser:
    """One tab of headless Chromium."""

    def __init__(self, profile):
        program = (
            shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        )
        if program is None:
            pytest.fail("the report tests need Chromium: apt-get update && apt-get install -y chromium")
        commands, self._out = os.pipe()
        self._in, answers = os.pipe()

        def at_three_and_four():
            ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (commands, answers)]
            os.dup2(ends[0], 3)
            os.dup2(ends[1], 4)

        self.process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={profile}"],
            preexec_fn=at_three_and_four,
            pass_fds=(3, 4),
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        self._buffer, self._number, self._session, self.events = b"", 0, None, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        # processor time of the main thread, so that a busy machine does not fail the test
        self.call("Performance.setTimeDomain", timeDomain="threadTicks")
        self.call("Performance.enable")

    def call(self, method, **params):
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != self._number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _receive(self):
        while b"\0" not in self._buffer:
            part = os.read(self._in, 1 << 20)
            assert part, "the browser has ended"
            self._buffer += part
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)

    def ask(self, expression):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, expression, seconds=120):
        end = time.monotonic() + seconds
        while not (value := self.ask(expression)):
            assert time.monotonic() < end, f"still not true: {expression}"
            time.sleep(0.02)
        return value

    def open(self, path, width):
        """Open a file; returns seconds of the main thread until the page stands and its first charts are drawn."""
        self.call("Page.navigate", url="about:blank")
        self.events.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        before = self.thread_seconds()
        self.call("Page.navigate", url=path.as_uri())
        self.wait("document.documentElement?.dataset.ready")
        self.wait("!document.querySelector('.plot') || document.querySelector('.plot .main-svg') !== null")
        after = self.thread_seconds()
        return after - before if after > before else after  # a new process starts from zero

    def thread_seconds(self):
        metrics = {
            metric["name"]: metric["value"] for metric in self.call("Performance.getMetrics")["metrics"]
        }
        return metrics["ThreadTime"]

    def draw_everything(self):
        # Before printing all charts are drawn, for the width of the paper; after it they have that of the window.
        for event in ("beforeprint", "afterprint"):
            self.ask(f"window.dispatchEvent(new Event('{event}'))")
        self.wait("[...document.querySelectorAll('.plot')].every((plot) => plot.querySelector('.main-svg'))")

    def screenshot(self, height):
        width = self.ask("document.documentElement.scrollWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)[
            "data"
        ]
        return base64.b64decode(data)

    def problems(self):
        """Exceptions, errors and warnings on the console, and requests that leave the file."""
        found = []
        for event in self.events:
            method, params = event["method"], event["params"]
            loud = method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert")
            if loud or method in ("Runtime.exceptionThrown", "Log.entryAdded"):
                found.append(params)
            elif method == "Network.requestWillBeSent":
                url = params["request"]["url"]
                if not url.startswith(("file:", "data:", "about:")):
                    found.append(url)
        return found

    def close(self):
        self.process.terminate()
        self.process.wait(timeout=30)
        os.close(self._out)
        os.close(self._in)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    tab = Browser(tmp_path_factory.mktemp("profile"))
    yield tab
    tab.close()


def field(seed, side=256):
    """Blurred noise and squares, no easier to compress than a real field, with a label stack of 40 squares."""
    rng = np.random.default_rng(seed)
    grey = gaussian_filter(rng.normal(400, 200, (side, side)), 1.0)
    stack = np.zeros((2, side, side), np.uint32)
    for label in range(1, 41):
        y, x = rng.integers(0, side - 24, 2)
        stack[label % 2, y : y + 20, x : x + 16] = label
        grey[y : y + 20, x : x + 16] += 600
    return grey, stack


@pytest.fixture(scope="module")
def plate_file(tmp_path_factory):
    """A full 384-well plate: two failed wells, two channels, seams."""
    fields = [field(seed) for seed in range(8)]
    rng = np.random.default_rng(5)
    names = [f"{row}/{column}/0" for row in "ABCDEFGHIJKLMNOP" for column in range(1, 25)]
    failed = {"C/7/0", "H/20/0"}
    images = pd.DataFrame(
        {
            "image": names, "row": [name.split("/")[0] for name in names],
            "column": [name.split("/")[1] for name in names], "field": "0", "height_px": 256, "width_px": 256,
            "status": ["failed" if name in failed else "done" for name in names],
            "failed_tiles": [int(name in failed) for name in names],
        }
    )  # fmt: skip
    done = np.array([name for name in names if name not in failed], dtype=object)
    number = 40_000
    top, left = rng.integers(0, 236, (2, number))
    objects = pd.DataFrame(
        {
            "image": done[rng.integers(0, done.size, number)], "label": np.arange(1, number + 1),
            "centroid_y": top + 9.5, "centroid_x": left + 7.5, "bbox_y0": top, "bbox_x0": left,
            "bbox_y1": top + 20, "bbox_x1": left + 16, "area_px": rng.integers(100, 400, number),
            "eccentricity": rng.random(number), "overlap_px": rng.integers(0, 3, number),
            "intensity_mean_DAPI": rng.normal(900, 90, number), "intensity_mean_GFP": rng.gamma(5, 90, number),
        }
    )  # fmt: skip
    seams = seam_quality(objects, dict.fromkeys(names, (256, 256)), core_px=128, shifts=199)
    run = Run(title="Plate 0417 </title>", objects=objects, images=images, facts={"run": "1"}, seams=seams)

    def picture(name):
        grey, stack = fields[sum(name.encode()) % len(fields)]
        return grey, None, stack

    def window(name, y0, y1, x0, x1):
        grey, _, stack = picture(name)
        return grey[y0:y1, x0:x1], stack[:, y0:y1, x0:x1]

    path = tmp_path_factory.mktemp("report") / "plate.html"
    path.write_text(run_report(run, picture=picture, window=window), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def evaluation_file(tmp_path_factory):
    shown, items = {}, []
    for at, well in enumerate(("A01", "A02", "B01", "B02")):
        grey, truth = field(at, side=160)
        predicted = np.where(truth % 5 == at, 0, truth)
        shown[well] = (grey, truth, predicted)
        items.append((well, overlap(truth, predicted), {"well": well, "condition": "<i>dose</i>"}))
    evaluation = evaluate_dataset(items, resamples=50)
    assessment = Assessment(
        title="Worms <b>", name="run <script>", evaluation=evaluation, baselines={"</script><b>": evaluation}
    )
    path = tmp_path_factory.mktemp("report") / "evaluation.html"
    path.write_text(evaluation_report(assessment, picture=shown.get), encoding="utf-8")
    return path


def test_a_384_well_plate_is_small_and_opens_quickly_in_a_new_browser(plate_file, tmp_path):
    assert plate_file.stat().st_size < MOST_BYTES
    cold = Browser(tmp_path)
    try:
        seconds = cold.open(plate_file, DESKTOP)
    finally:
        cold.close()
    print("seconds of the main thread, with the debugger listening:", seconds)
    assert seconds < MOST_SECONDS


def test_what_is_out_of_view_is_drawn_when_it_comes_into_view(browser, plate_file):
    browser.open(plate_file, DESKTOP)
    assert browser.ask("[...document.querySelectorAll('.plot')].at(-1).querySelector('.main-svg') === null")
    browser.ask("[...document.querySelectorAll('.plot')].at(-1).scrollIntoView()")
    browser.wait("[...document.querySelectorAll('.plot')].at(-1).querySelector('.main-svg') !== null")
    browser.ask("document.querySelector('#images tr:last-child td a').click()")
    browser.wait("document.querySelector('figure:target').getBoundingClientRect().top < innerHeight")
    assert browser.ask("document.querySelector('figure:target img').naturalWidth") > 0
    assert browser.problems() == []


def test_every_picture_of_a_plate_is_there(browser, plate_file):
    browser.open(plate_file, DESKTOP)
    assert browser.ask("document.querySelectorAll('.pictures figure').length") > 382
    assert browser.problems() == []


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
@pytest.mark.parametrize("page", ["plate_file", "evaluation_file"])
def test_pages_fit_the_screen_without_an_error(browser, request, page, width):
    browser.open(request.getfixturevalue(page), width)
    browser.draw_everything()
    assert browser.problems() == []
    assert browser.ask("document.documentElement.scrollWidth") <= width
    assert browser.ask("document.fonts.status") == "loaded"
    image = browser.screenshot(1600)
    assert image.startswith(b"\x89PNG")
    assert len(image) > 30_000  # a blank page of this size compresses to a few kilobytes


def test_the_plotting_library_of_the_page_is_that_of_the_python_package():
    assert f"v{get_plotlyjs_version()}" in PLOTLY.read_text(encoding="utf-8")[:200]


def test_charts_show_data_and_escape_names(browser, evaluation_file):
    browser.open(evaluation_file, DESKTOP)
    browser.draw_everything()
    legend = browser.ask("[...document.querySelectorAll('.legendtext')].map((t) => t.textContent).join('|')")
    assert "run <script>" in legend
    assert "</script><b>" in legend
    assert browser.ask("document.querySelectorAll('main b, main i').length") == 0
    assert browser.ask("document.title") == "Worms <b>"


def test_tables_sort_by_number_and_back(browser, plate_file):
    browser.open(plate_file, DESKTOP)
    column = """(() => {
      const table = document.querySelector('#images table');
      const at = [...table.tHead.rows[0].cells].findIndex((th) => th.textContent === 'objects');
      table.tHead.rows[0].cells[at].firstElementChild.click();
      return [...table.tBodies[0].rows].map((row) => row.cells[at].dataset.v);
    })()"""
    falling, rising = browser.ask(column), browser.ask(column)
    numbers = [float(value) for value in falling if value]
    assert numbers == sorted(numbers, reverse=True)
    assert [float(value) for value in rising if value] == sorted(numbers)
    assert falling[-2:] == rising[-2:] == ["", ""]  # the failed wells have no number and stay last
    assert browser.problems() == []


def test_a_well_filters_rows_and_pictures(browser, plate_file):
    browser.open(plate_file, DESKTOP)
    browser.ask("{ const well = document.querySelector('#images select.well'); well.value = 'B03'; "
                "well.dispatchEvent(new Event('change')); }")  # fmt: skip
    assert browser.ask("document.querySelector('#fields select.well').value") == "B03"
    assert browser.ask("document.querySelectorAll('#images tbody tr:not([hidden])').length") == 1
    assert browser.ask("document.querySelector('#images .count').textContent") == "1 of 384 rows"
    wells = "[...document.querySelectorAll('#fields figure:not([hidden])')].map((f) => f.dataset.well)"
    assert set(browser.ask(wells)) == {"B03"}
    browser.ask("document.querySelector('#seams td a').click()")
    assert browser.ask("document.querySelectorAll('#images tbody tr:not([hidden])').length") == 384


def test_text_filters_rows(browser, plate_file):
    browser.open(plate_file, DESKTOP)
    browser.ask("{ const box = document.querySelector('#images .filter'); box.value = 'FAILED'; "
                "box.dispatchEvent(new Event('input')); }")  # fmt: skip
    shown = "[...document.querySelectorAll('#images tbody tr:not([hidden])')].map((row) => row.cells[0].textContent)"
    assert browser.ask(shown) == ["C/7/0", "H/20/0"]


def test_a_click_on_a_well_leads_to_its_picture(browser, plate_file):
    browser.open(plate_file, DESKTOP)
    browser.draw_everything()
    anchor = browser.ask("""(() => {
      const plot = document.querySelector('#plate .plot');
      const anchor = plot.data[0].customdata[1][2];
      plot.emit('plotly_click', { points: [{ customdata: anchor }] });
      return anchor;
    })()""")
    assert browser.ask("location.hash") == "#" + anchor
    assert browser.ask(f"document.getElementById('{anchor}').dataset.well") == "B03"


def test_legend_boxes_hide_outlines_and_a_click_enlarges(browser, evaluation_file):
    browser.open(evaluation_file, DESKTOP)
    count = "document.querySelectorAll('.gallery .o:not([style*=none])').length"
    before = browser.ask(count)
    browser.ask("document.querySelector('.legend [data-key=missed]').click()")
    missed = browser.ask("document.querySelectorAll('.o[data-key=\"truth missed\"]').length")
    assert missed > 0
    assert browser.ask(count) == before - missed
    browser.ask("document.querySelector('.legend [data-key=truth]').click()")
    # A legend acts on its own gallery: those of overlapping pairs, with the key "truth" alone, stay visible.
    left = "document.querySelectorAll('.o[data-key^=prediction], .o[data-key=truth]').length"
    assert browser.ask(count) == browser.ask(left)
    width = browser.ask("document.querySelector('.frame').clientWidth")
    browser.ask("document.querySelector('.frame').click()")
    assert browser.ask("document.querySelector('.frame').clientWidth") > 1.5 * width
    browser.ask("document.querySelector('.frame').click()")
    assert browser.ask("document.querySelector('.frame').clientWidth") == width
    assert browser.problems() == []


def test_a_printed_page_shows_its_charts_whole_and_none_over_another(browser, plate_file):
    """Printed for real: charts keep to the paper, and their pictures lie below each other."""
    browser.open(plate_file, DESKTOP)
    browser.ask("window.dispatchEvent(new Event('beforeprint'))")
    browser.call("Emulation.setEmulatedMedia", media="print")
    try:
        boxes = browser.ask("""[...document.querySelectorAll('.chart .plot .main-svg:first-child')].map((svg) => {
          const box = svg.getBoundingClientRect(); return [box.left, box.right, box.top, box.bottom]; })""")
        document = browser.call("Page.printToPDF", printBackground=True, preferCSSPageSize=True)["data"]
    finally:
        browser.call("Emulation.setEmulatedMedia", media="")
        browser.ask("window.dispatchEvent(new Event('afterprint'))")
    assert len(boxes) > 3
    assert all(right - left <= 652 for left, right, _, _ in boxes)
    assert all(bottom <= top + 1 for (_, _, _, bottom), (_, _, top, _) in zip(boxes, boxes[1:]))
    assert base64.b64decode(document).startswith(b"%PDF")
    assert browser.ask("document.documentElement.scrollWidth") <= DESKTOP
