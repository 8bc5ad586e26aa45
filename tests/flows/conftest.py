"""Small stores, segmenters as importable modules, and what to compare: the bytes of labels, the rows of tables."""

import itertools
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from flows.jobs import SegmentJob, job
from flows.segmentation.run import segment
from pipeline.store.ome.image_writing import create_plate, write_image
from pipeline.store.ome.labels import read_stack
from pipeline.store.ome.tables import read_table
from pipeline.store.places.address import address

MODULES = itertools.count()


def smooth(shape, seed=0, sigma=4.0, dtype=np.uint16):
    """Smooth noise that covers most of the range of an integer type."""
    noise = ndimage.gaussian_filter(
        np.random.default_rng(seed).random(shape), (0,) * (len(shape) - 2) + (sigma,) * 2
    )
    noise = (noise - noise.min()) / max(np.ptp(noise), 1e-9)
    top = 1.0 if np.dtype(dtype).kind == "f" else 0.9 * np.iinfo(dtype).max
    return (noise * top).astype(dtype)


@pytest.fixture
def noise():
    return smooth


@pytest.fixture
def image_at(tmp_path):
    """Write one image: `image_at("a.zarr", array)`; axes c, y, x unless said otherwise."""

    def make(name, array, **options):
        array = array if array.ndim > 2 or "axes" in options else array[None]
        options.setdefault("chunks", (64, 64))
        write_image(address(tmp_path / name), "", array, **options)
        return tmp_path / name

    return make


@pytest.fixture
def plate_at(tmp_path):
    """Write a plate: `plate_at("p.zarr", {"A/1": [image, ...]})`."""

    def make(name, wells, **options):
        place = address(tmp_path / name)
        rows = [(*well.split("/"), len(fields)) for well, fields in wells.items()]
        create_plate(place, name="plate", wells=rows)
        for well, fields in wells.items():
            for number, array in enumerate(fields):
                if array is not None:
                    write_image(place, f"{well}/{number}", array[None], chunks=(64, 64), **options)
        return tmp_path / name

    return make


@pytest.fixture
def module_of(tmp_path, monkeypatch):
    """Write a module in the working directory: `module_of(source)` is its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])

    def make(source):
        name = f"segmenters_{next(MODULES)}"
        (tmp_path / f"{name}.py").write_text("import numpy as np\n" + textwrap.dedent(source))
        return name

    return make


@pytest.fixture
def bright(module_of):
    """Pixels above a half on layer 0 and those between 0.3 and 0.6 on layer 1: per pixel, and they overlap."""
    name = module_of(
        """
        def bright(block):
            return np.stack([block[0] > 0.5, (block[0] > 0.3) & (block[0] < 0.6)])
        """
    )
    return f"{name}:bright"


@pytest.fixture
def picky(module_of):
    """Pixels above a half; a block with a pixel above 1,000 is refused."""
    name = module_of(
        """
        def picky(block):
            if block.max() > 1e3:
                raise RuntimeError("too bright")
            return block[:1] > 0.5
        picky.link, picky.layers = "touch", 1
        """
    )
    return f"{name}:picky"


@pytest.fixture
def counted(module_of, tmp_path):
    """A segmenter that writes a line for every tile it sees, and the number of lines so far."""
    log = tmp_path / "calls.log"
    name = module_of(
        f"""
        def counted(block):
            with open({str(log)!r}, "a") as log:
                log.write("x\\n")
            return (block[:1] > 0.5)
        counted.link, counted.layers = "touch", 1
        """
    )

    def calls():
        return len(log.read_text().splitlines()) if log.exists() else 0

    return f"{name}:counted", calls


@pytest.fixture
def run_job():
    """Segment with plain values: `run_job(source, segmenter=..., tiling={"core": 64})`."""

    def run(source, progress=None, **table):
        options = {"progress": progress} if progress else {}
        return segment(job(SegmentJob, {"source": str(source), **table}), **options)

    return run


def result_files(store, name):
    """Bytes of all files of labels and tables of a name, by path."""
    store = Path(store)
    wanted = [p for kind in ("labels", "tables") for p in store.rglob(f"{kind}/{name}*/**/*") if p.is_file()]
    # The table over a whole plate has the name of its store in it; it has tests of its own.
    wanted = [p for p in wanted if ".platelayer" not in p.parts and p.parent.name != "table.parquet"]
    found = {str(p.relative_to(store)): p.read_bytes() for p in wanted}
    assert found, f"no labels {name} in {store}"
    return found


@pytest.fixture
def files_of():
    return result_files


@pytest.fixture
def labels_of():
    """Bytes of the labels alone."""
    return lambda store, name: {
        k: v for k, v in result_files(store, name).items() if "tables" not in k.split("/")
    }


@pytest.fixture
def table_of():
    """The object table without the one column that speaks of tiles."""
    return lambda store, name, path="": read_table(address(store), path, name).drop(columns="tiles_spanned")


@pytest.fixture
def stack_of():
    return lambda store, name, path="", plane=(0, 0): read_stack(address(store), path, name, plane=plane)


@pytest.fixture
def oracle():
    """What the whole image should give: components of each boolean layer, as a set of pixel sets."""

    def objects(layers, min_area=0):
        found = []
        for layer in layers:
            labels, count = ndimage.label(layer, np.ones((3, 3)))
            found += [frozenset(np.flatnonzero(labels == i).tolist()) for i in range(1, count + 1)]
        return sorted((o for o in found if len(o) >= max(min_area, 1)), key=sorted)

    return objects


@pytest.fixture
def objects_in():
    """Objects of a label stack as sorted pixel sets."""

    def objects(stack):
        found = [np.flatnonzero(layer == i) for layer in stack for i in np.unique(layer) if i]
        return sorted((frozenset(pixels.tolist()) for pixels in found), key=sorted)

    return objects


class Stop(BaseException):
    """Ends a run from outside, as a signal would."""


@pytest.fixture
def stop_after():
    """A progress that ends the run after so many pieces of work: `stop_after(3)`; `.Stop` is what it raises."""

    class Stopping:
        def __init__(self, pieces):
            self.left = pieces

        def start(self, stage, total):
            pass

        def advance(self, stage, item):
            self.left -= 1
            if self.left < 0:
                raise Stop

        def finish(self, stage):
            pass

    Stopping.Stop = Stop
    return Stopping
