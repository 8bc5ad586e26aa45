"""Make the pictures of the tutorial and of the pages "Bring your ...": `make pictures`.

The commands are those of the pages, run by `page_blocks`; what they wrote is drawn, or photographed in headless
Chromium.
"""

import html
import io
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import tifffile
from page_blocks import Reader, read_blocks
from PIL import Image, ImageChops

import platelayer
from flows.cli import run
from pipeline.datasets.synthetic.scenes import scene
from pipeline.report.overlay import outline_mask
from pipeline.store.ome.image_writing import write_image
from pipeline.store.places.address import address

matplotlib.use("Agg")
from matplotlib import pyplot as plt

DOCS = Path(__file__).parent
IMAGES = DOCS / "images"
COLOURS = 256
GREY_STEP = 8
"""Difference of two greys of a picture without colours."""
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=15000")
TERMINAL = """<body style="margin:0;background:#fff"><pre style="margin:0;padding:18px 22px;display:inline-block;
background:#1e2530;color:#dfe6ee;font:15px/22px 'DejaVu Sans Mono',monospace">%s</pre>"""


def save(picture: Image.Image, name: str) -> None:
    """Write a picture with few colours; a photograph in grey with fewer."""
    colours = picture.convert("RGB")
    grey = picture.convert("L")
    if ImageChops.difference(colours, grey.convert("RGB")).getbbox() is None:
        picture = grey.point([value // GREY_STEP * GREY_STEP for value in range(256)])
    else:
        picture = colours.quantize(COLOURS, dither=Image.Dither.NONE)
    picture.save(IMAGES / name, optimize=True)
    sys.stdout.write(f"{name}: {(IMAGES / name).stat().st_size / 1000:.0f} kB, {picture.size}\n")


def photograph(page: str, folder: Path, size: tuple[int, int]) -> Image.Image:
    """Return what a browser shows of an HTML page, without the margin around it."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        raise SystemExit("the pictures need Chromium")
    source, target = folder / "photographed.html", folder / "photographed.png"
    source.write_text(page)
    words = [*FLAGS, f"--window-size={size[0]},{size[1]}", f"--screenshot={target}", source.as_uri()]
    subprocess.run([program, *words], check=True, stderr=subprocess.DEVNULL)
    picture = Image.open(target).convert("RGB")
    blank = Image.new("RGB", picture.size, picture.getpixel((0, picture.height - 1)))
    box = ImageChops.difference(picture, blank).getbbox() or (0, 0, *picture.size)
    return picture.crop((max(box[0] - 8, 0), max(box[1] - 8, 0), box[2] + 8, box[3] + 8))


def section(report: Path, name: str, *, hidden: str = "", width: int = 1000) -> Image.Image:
    """Photograph one section of a report; ``hidden`` selects what is left out of it."""
    left_out = ",".join([f"section:not(#{name})", "header", "nav", "footer", *filter(None, [hidden])])
    style = f"<style>{left_out}{{display:none!important}}</style></head>"
    return photograph(report.read_text().replace("</head>", style, 1), report.parent, (width, 1600))


def panels(pictures: Sequence[tuple[str, np.ndarray]], *, columns: int, inches: float) -> Image.Image:
    """Draw pictures with their titles, side by side."""
    height, width = pictures[0][1].shape[:2]
    rows = -(-len(pictures) // columns)
    size = columns * inches, rows * (inches * height / width + 0.3)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for place, (title, picture) in zip(axes.flat, pictures, strict=True):
        place.imshow(picture, cmap="gray", interpolation="nearest")
        place.set_title(title, fontsize=10)
        place.set_axis_off()
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110)
    plt.close(figure)
    return Image.open(buffer)


def object_colour(number: int) -> tuple[float, float, float]:
    """Return a colour for an object, none of them grey."""
    colours = [colour for colour in plt.get_cmap("tab10").colors if len({*colour}) > 1]
    return colours[number * 4 % len(colours)]


def coloured(grey: np.ndarray, stack: np.ndarray) -> np.ndarray:
    """Colour the objects of a label stack ``(L, y, x)`` over an image ``(y, x)``; uint8 ``(y, x, 3)``."""
    low, high = np.percentile(grey, (0.5, 99.8))
    shown = np.repeat(np.clip((grey - low) / (high - low), 0, 1)[..., None], 3, axis=2)
    for layer in stack:
        line = outline_mask(layer)
        for label in np.unique(layer[layer > 0]):
            colour = np.array(object_colour(int(label)))
            mask = layer == label
            shown[mask] = 0.62 * shown[mask] + 0.38 * colour
            shown[mask & line] = colour
    return (255 * shown).astype(np.uint8)


def tutorial(folder: Path) -> None:
    """Follow the tutorial, and photograph what it shows."""
    page = "tutorial.md"
    for block, printed in Reader(folder).follow(read_blocks(page, (DOCS / page).read_text())):
        sys.stdout.write(f"{block.place}\n{printed}")
    scans = sorted((folder / "scan").glob("*.tif"))
    wells = [(re.findall("[A-P][0-9]+", path.stem)[0], tifffile.imread(path)[::2, ::2]) for path in scans]
    save(panels(wells, columns=3, inches=2.9), "tutorial-scan.png")
    report, evaluation = folder / "report.html", folder / "evaluation" / "report.html"
    save(section(report, "plate"), "tutorial-plate.png")
    save(section(report, "fields", hidden="figure:nth-of-type(n+3)"), "tutorial-pictures.png")
    save(
        section(report, "controls", hidden=".scroll, .block.narrow, .block:has(table), details"),
        "tutorial-controls.png",
    )
    save(
        section(report, "review", hidden=".block:has(table), figure:nth-of-type(n+7)"), "tutorial-review.png"
    )
    save(section(evaluation, "pictures", hidden="figure:nth-of-type(n+3)"), "tutorial-evaluation.png")


def ingest(folder: Path) -> None:
    """The files of two wells, of which one lacks a file, and what is understood of them."""
    (folder / "scan").mkdir()
    image = np.zeros((1040, 1392), np.uint16)
    for well in ("A01", "B12"):
        for site, z, channel in ((s, z, c) for s in (1, 2, 5) for z in (1, 2, 3) for c in ("DAPI", "GFP")):
            if (well, site, z, channel) != ("B12", 5, 3, "GFP"):
                tifffile.imwrite(
                    folder / "scan" / f"exp_{well}_s{site}_z{z}_{channel}.tif", image, imagej=True,
                    resolution=(1 / 0.65, 1 / 0.65), metadata={"unit": "um"}, compression="zlib",
                )  # fmt: skip
    names = sorted(path.name for path in (folder / "scan").iterdir())
    shown = [f"{'   '.join(names[:4])}", f"{'   '.join(names[4:7])}   ... {len(names)} files"]
    command = "platelayer ingest tiff scan/ plate.zarr --dry-run"
    (printed,) = _printed(folder, [command], exit_code=3)
    lines = [
        "<b>$ ls scan/</b>",
        *map(html.escape, shown),
        "",
        f"<b>$ {command}</b>",
        html.escape(printed.rstrip()),
    ]
    text = "\n".join(lines).replace("LEFT OUT", '<span style="color:#ffb454">LEFT OUT</span>')
    save(photograph(TERMINAL % text, folder, (1100, 400)), "ingest.png")


def models(folder: Path) -> None:
    """The same nuclei by several segmenters."""
    (image,), _ = scene("cells", (230, 300), seed=5, density=1.3).render(0, 230, 0, 300)
    write_image(address(folder / "slide.zarr"), "", image[None], channels=("DAPI",), chunks=(128, 128))
    blocks = read_blocks("", (DOCS / "bring-your-model.md").read_text())
    (folder / "blobs.py").write_text(next(block.text for block in blocks if block.title == "blobs.py"))
    commands = {
        "threshold": "platelayer segment slide.zarr --segmenter threshold",
        "blobs": "platelayer segment slide.zarr --segmenter blobs:blobs --name blobs",
        "nuclei": "platelayer segment slide.zarr --model nuclei",
    }
    _printed(folder, commands.values())
    titles = {
        "threshold": "--segmenter threshold",
        "blobs": "--segmenter blobs:blobs",
        "nuclei": "--model nuclei",
    }
    shown = [("slide.zarr", coloured(image, np.zeros((1, *image.shape), int)))]
    for name, title in titles.items():
        stack = platelayer.read_stack(folder / "slide.zarr", "", name)
        shown.append((f"{title}: {len(np.unique(stack)) - 1}", coloured(image, stack)))
    save(panels(shown, columns=2, inches=4.2), "models.png")


def masks(folder: Path) -> None:
    """Outlines of another program, and the layers of the label stack that they become."""
    size = (230, 330)
    run(
        [
            "ingest",
            "synthetic",
            str(folder / "plate.zarr"),
            "--size",
            "230x330",
            "--seed",
            "42",
            "--density",
            "1.6",
        ]
    )
    _printed(
        folder, ["platelayer export plate.zarr --name truth --format geojson --output annotations.geojson"]
    )
    _printed(folder, ["platelayer import-labels annotations.geojson plate.zarr --name imported"])
    image, _ = scene("worms", size, seed=42, density=1.6).render(0, size[0], 0, size[1])
    stack = platelayer.read_stack(folder / "plate.zarr", "", "imported")
    features = json.loads((folder / "annotations.geojson").read_text())
    features = features["features"] if isinstance(features, dict) else features
    drawn = _polygons(image[0], [feature["geometry"] for feature in features])
    first, second = (coloured(image[0], layer[None]) for layer in stack[:2])
    shown = [("annotations.geojson", drawn), ("labels/imported", first), ("labels/imported_layer1", second)]
    save(panels(shown, columns=3, inches=3.3), "masks.png")


def _polygons(grey: np.ndarray, geometries: Iterable[dict]) -> np.ndarray:
    """Draw the outer rings of GeoJSON geometries over an image."""
    height, width = grey.shape
    figure = plt.figure(figsize=(width / 50, height / 50), dpi=150)
    place = figure.add_axes((0, 0, 1, 1))
    place.imshow(grey, cmap="gray", extent=(0, width, height, 0))
    for number, geometry in enumerate(geometries):
        shapes = geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]
        for rings in shapes:
            place.plot(*np.array(rings[0]).T, color=object_colour(number), linewidth=1.6)
    place.set_axis_off()
    figure.canvas.draw()
    drawn = np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()
    plt.close(figure)
    return drawn


def _printed(folder: Path, lines: Iterable[str], exit_code: int = 0) -> list[str]:
    """Run commands in a folder as a page would; returns what each printed."""
    text = "\n".join(f"<!-- exit code: {exit_code} -->\n```bash\n{line}\n```" for line in lines)
    return [printed for _, printed in Reader(folder).follow(read_blocks("pictures", text))]


PICTURES = (tutorial, ingest, models, masks)


def main(names: Sequence[str]) -> None:
    """Make all pictures, or those of the named functions."""
    for make in PICTURES:
        if not names or make.__name__ in names:
            with tempfile.TemporaryDirectory() as folder:
                make(Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
