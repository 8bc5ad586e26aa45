"""`platelayer train` on a small plate with exact truth: from a job file to a model that segments, and back again."""

import contextlib
import io
import re
import shutil
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flows.cli import run as command
from flows.commands.training import train as train_command
from flows.ingest.samples import ingest_synthetic
from flows.jobs import TrainJob, job
from flows.training.train import VALIDATION_SHARE, _digest, _examples, prepared_recipe, split
from model.card import read_card
from model.checkpoint import load_checkpoint, save_checkpoint
from model.samples.packing import read_packed
from pipeline.errors import BadArgument
from pipeline.store.ome.collection import open_collection
from pipeline.store.ome.image_writing import create_plate, write_image
from pipeline.store.ome.labels import read_stack, write_stack
from pipeline.store.ome.tables import read_table
from pipeline.store.places.address import address

RECIPE = """
batch = 2
crop_px = 32
ema = 0.5
validate_every = 50
seed = 5
[method]
variant = "code"
min_area = 10
[method.shape]
heads = {layers = 4, foreground = 1}
width = 8
poolings = 1
head_width = 8
head_convs = 1
fold = 2
order = "norm-relu"
[augment]
paste = 0.0
[[phases]]
name = "phase1"
steps = 100
lr = 2e-2
weights = {foreground = 1.0, attraction = 1.0, repulsion = 1.0, sparsity = 0.1}
"""
STEPS = 100

LINES = train_command._Lines


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cells on three wells of two fields; never written to."""
    place = tmp_path_factory.mktemp("drawn") / "plate.zarr"
    wells = [("A", "1"), ("A", "2"), ("B", "1")]
    ingest_synthetic(str(place), kind="cells", size=(96, 96), wells=wells, fields=2, density=2.0)
    return place


JOB = """
data = ["{store}"]
folder = "out"
recipe = "recipe.toml"
name = "tiny"
device = "cpu"
[source]
title = "drawn cells"
licence = "CC0"
"""


@pytest.fixture
def plate(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy in the working directory, with a recipe and a job beside it."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(drawn, tmp_path / "plate.zarr")
    (tmp_path / "recipe.toml").write_text(RECIPE)
    (tmp_path / "job.toml").write_text(JOB.format(store="plate.zarr"))
    return tmp_path / "plate.zarr"


@pytest.fixture(scope="session")
def trained(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The model of a training that nothing interrupted, and what was said; never written to."""
    place = tmp_path_factory.mktemp("trained")
    (place / "recipe.toml").write_text(RECIPE)
    (place / "job.toml").write_text(JOB.format(store=drawn))
    said = io.StringIO()
    with contextlib.chdir(place), contextlib.redirect_stdout(said):
        assert command(["train", "job.toml"]) == 0
    return place / "out" / "phase1", said.getvalue()


@pytest.fixture
def model(trained: tuple[Path, str]) -> Path:
    return trained[0]


def train(*settings: str) -> int:
    return command(["train", "job.toml", *(word for setting in settings for word in ("--set", setting))])


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def weights(folder: Path) -> bytes:
    return (folder / "weights.safetensors").read_bytes()


def kill_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Ctrl-C when so many steps are done."""

    class Lines(LINES):
        def __call__(self, done: int, steps: int) -> None:
            super().__call__(done, steps)
            if done == step:
                raise KeyboardInterrupt

    monkeypatch.setattr(train_command, "_Lines", Lines)


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """Train with settings that cannot be: one line that fits, exit code 1, and every file as it was."""

    def check(settings: list[str], message: str) -> None:
        before = files(tmp_path)
        capsys.readouterr()
        assert train(*settings) == 1
        said = capsys.readouterr()
        assert re.search(message, said.err), said.err
        assert said.err.count("\n") == 1 and "unexpected" not in said.err and said.out == ""
        assert files(tmp_path) == before

    return check


def test_a_job_file_becomes_a_model_that_segments_the_plate(plate: Path, trained: tuple[Path, str]) -> None:
    model, said = trained
    last = said.splitlines()[-1]
    assert last.startswith(f"{STEPS} steps, best validation score 0.") and last.endswith("-> out/phase1")
    card = read_card(model)
    assert (card["name"], card["licence"], card["data"]["title"]) == ("tiny", "CC0", "drawn cells")
    assert card["normalise"] == {"kind": "percentile", "low": 1.0, "high": 99.8}
    score = card["training"]["validation_score"]
    assert score > 0 and f"score {score:.4f}" in last
    assert card["precision"]["scores"]["float32"]["meanAP"] == pytest.approx(score, abs=5e-5)
    assert f"precision {card['precision']['chosen']} (float32 meanAP {score:.4f}" in said.splitlines()[-2]
    assert command(["segment", str(plate), "--model", str(model), "--name", "found"]) == 0
    fields = [f"{well}/{field}" for well in ("A/1", "A/2", "B/1") for field in (0, 1)]
    assert min(len(read_table(address(plate), path, "found")) for path in fields) > 1


def test_phases_are_changed_by_their_numbers_and_shortened(
    plate: Path, refused: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    refused(["change.phases.1.steps=3"], r"phases\.1: expected a number from 0 to 0")
    assert train("change.phases.0.steps=3") == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("3 steps, ")
    assert command(["train", "job.toml", "--set", "folder=short", "--steps", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("2 steps, ")
    assert any(line.startswith("phase1 step 2: validation loss ") for line in lines)
    assert command(["train", "job.toml", "--steps", "2", "--minutes", "1"]) == 1
    assert "got both" in capsys.readouterr().err


def test_what_was_chosen_for_a_model_is_kept_when_a_training_goes_on_from_it(
    plate: Path, model: Path
) -> None:
    tuned = load_checkpoint(model)
    method = replace(tuned.method, foreground_threshold=0.7, layer_threshold=0.4, min_area=77)
    save_checkpoint(
        "tuned", network=tuned.network, method=method, name="t", normalise=tuned.card["normalise"]
    )
    table = tomllib.loads(JOB.format(store="plate.zarr")) | {"initial": "tuned"}

    def settings(**change: object) -> tuple[float, float, int]:
        _, recipe = prepared_recipe(job(TrainJob, table | change))
        chosen = recipe.method
        return chosen.foreground_threshold, chosen.layer_threshold, chosen.min_area

    assert settings(recipe="house-knots") == (0.7, 0.4, 77)
    assert settings() == (0.7, 0.4, 10)  # its own recipe file names the least area
    change = {"method": {"foreground_threshold": 0.6}}
    assert settings(recipe="house-knots", change=change) == (0.6, 0.4, 77)


def test_a_result_below_the_starting_model_is_said(
    plate: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = [0.8, 0.3]
    monkeypatch.setattr("flows.training.train.score", lambda predicted, true: scores.pop(0))
    assert train(f"initial={model}", "folder=worse", "change.phases.0.steps=1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("starting model: ") and lines[0].endswith("score 0.8000")
    assert lines[-2].startswith("below the model it started from, best validation score 0.8000: keep that")
    assert lines[-1].startswith("1 steps, best validation score 0.3000 ->")


def test_packed_samples_are_those_of_the_job(plate: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["train", "job.toml", "--pack", "data.npz"]) == 0
    assert re.fullmatch(r"\d+\.\d MiB -> data\.npz\n", capsys.readouterr().out) and not Path("out").exists()
    packed = read_packed("data.npz")
    learning, validating = split(job(TrainJob, tomllib.loads(JOB.format(store="plate.zarr"))))
    assert (len(packed.samples), len(packed.validation)) == (len(learning), len(validating))
    np.testing.assert_allclose(packed.samples[0][0], learning[0].pair[0], atol=2e-3)
    np.testing.assert_array_equal(packed.samples[0][1] > 0, learning[0].pair[1] > 0)
    assert packed.about["licence"] == "CC0" and packed.about["normalise"]["kind"] == "percentile"


def test_a_finished_training_computes_nothing_and_says_so(
    plate: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(model.parent, "out")
    assert "phase1" in Path("out/training.html").read_text()
    before = files(Path("out"))
    monkeypatch.setattr("model.training.loop._learn", None)
    assert train() == 0
    assert capsys.readouterr().out.startswith(
        f"nothing to do: all {STEPS} steps were done before, best valid"
    )
    assert files(Path("out")) == before


def test_an_interrupted_training_goes_on_to_the_same_weights(
    plate: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The plate has another name and place than that of the uninterrupted one, and the same wells validate."""
    kill_at(monkeypatch, 60)
    assert train() == 130
    assert "goes on where it stopped" in capsys.readouterr().err
    kill_at(monkeypatch, 50)  # Its state was kept: who begins again is interrupted again.
    assert train() == 0
    assert f"{STEPS} steps, best validation" in capsys.readouterr().out
    assert weights(Path("out/phase1")) == weights(model)


def test_of_several_processes_the_first_one_speaks_and_writes(
    plate: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("recipe.toml").write_text(RECIPE.replace("steps = 100", "steps = 2"))
    monkeypatch.setattr("model.training.parallel.rank", lambda: 1)
    assert train() == 0
    assert capsys.readouterr().out == "" and not list(Path("out").iterdir())


def test_a_best_model_chosen_by_its_loss_is_not_given_a_score(
    plate: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("recipe.toml").write_text(RECIPE.replace("steps = 100", 'steps = 2\nbest = "loss"'))
    assert train() == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert "lowest validation loss " in last and "score" not in last


def test_a_model_to_start_from_brings_its_network(plate: Path, model: Path) -> None:
    Path("recipe.toml").write_text(
        RECIPE.replace("width = 8", "width = 4").replace("steps = 100", "steps = 1")
    )
    assert train(f"initial={model}", "folder=on") == 0
    card, initial = read_card("on/phase1"), read_card(model)
    assert card["network"] == initial["network"] and card["network"]["width"] == 8
    assert card["training"]["initial"] == initial["digest"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["initial={model}", "normalise.kind=meanstd"], "its normalisation .*percentile.*got .*meanstd.*set normalise"),
        (["initial=wurms"], r"'wurms': neither a shipped model nor a folder; did you mean worms\?"),
        (["initial=plate.zarr"], "'plate.zarr': expected a folder with card.json and weights.safetensors"),
    ],
    ids=["normalisation", "no such model", "no model"],
)  # fmt: skip
def test_a_model_that_cannot_be_started_from(
    settings: list[str], message: str, plate: Path, model: Path, refused: Callable[..., None]
) -> None:
    refused([setting.format(model=model) for setting in settings], message)


def test_a_training_resumes_with_the_model_it_started_from(
    plate: Path, model: Path, refused: Callable[..., None]
) -> None:
    """A folder belongs to its beginning: random weights are not another model's, nor the other way round."""
    shutil.copytree(model.parent, "out")
    refused([f"initial={model}"], "'out': holds a training of another initial model; name another folder")
    Path("recipe.toml").write_text(RECIPE.replace("steps = 100", "steps = 2"))
    assert train(f"initial={model}", "folder=on") == 0
    refused(["folder=on"], "'on': holds a training of another initial model; name another folder")


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (RECIPE.replace("batch", "bach"), r"recipe 'recipe.toml': .*expected names among .*'batch'.*got .'bach'"),
        (RECIPE.replace("batch = 2", 'batch = "two"'), "'recipe.toml': expected values of the types .* 'str' "),
        (RECIPE.replace("seed = 5", 'seed = "five"'), "'recipe.toml': seed: Input should be .* integer.*got 'five'"),
        (RECIPE.replace('name = "phase1"', ""), "recipe 'recipe.toml': expected values of .*missing .* 'name'"),
        (RECIPE.replace("sparsity = 0.1", 'sparsity = "much"'), "phases.0.weights.sparsity: .*number.*got 'much'"),
        (RECIPE.replace("crop_px = 32", "crop_px = 30"), "crop_px: expected a multiple of 4, got 30"),
        (RECIPE.replace("seed = 5", "seed five"), "recipe 'recipe.toml': Expected '=' .*line 6"),
    ],
    ids=["name", "type", "unused type", "absent", "weight", "size", "no TOML"],
)  # fmt: skip
def test_recipes_with_mistakes(recipe: str, message: str, plate: Path, refused: Callable[..., None]) -> None:
    Path("recipe.toml").write_text(recipe)
    refused([], message)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["bach=3"], "bach: no such key; known keys: .*change"),
        (["source.licenc=CC0"], "source.licenc: no such key; did you mean source.licence"),
        (["data=[]"], r"data: .* at least 1 item.*got \[\]"),
        (["recipe=huose"], r"expected a TOML file or one of \[.*'house', .*'paper', .*\], got 'huose'"),
        (["change.bach=3"], "change: recipe: expected names among .*'batch'.*got .'bach'"),
        (["change.phases=3"], "change: expected values of the types they have in the shipped recipes"),
        (['change.seed="x"'], "change: seed: Input should be a valid integer"),
        (["truth=cells"], "plate.zarr: no image has labels 'cells'; ingest with truth, or set truth"),
        (['data=["plate.zarr", "empty.zarr"]'], "empty.zarr: no image has labels 'truth'"),
        (['data=["nowhere.zarr"]'], "nowhere.zarr: .*no such store"),
        (['channel=["DAPI"]'], "there is no channel 'DAPI'; there are 0: 'nuclei'"),
        (['data=["plate.zarr", "two.zarr"]'], "two.zarr/C/1: expected 1 channel.* like .*plate.zarr/.*, got 2; name"),
        (['validation=["two.zarr"]'], "two.zarr/C/1: expected 1 channel"),
        (["normalise.scope=plate"], "normalise.scope: expected 'image', .*got 'plate'"),
        (['validation=["./plate.zarr"]'], "not in data, got .*plate.zarr/A/1 and 2 more .* in both; take"),
        (['validation=["plate.zarr/B/1"]'], "not in data, got .*plate.zarr/B/1.* in both"),
        (['data=["two.zarr"]'], "at least two wells or images.*got .*two.zarr/C/1 alone; name"),
        (["change.method.shape.heads.layers=1"], "at most 1 objects on a pixel, .*got 2; choose"),
    ],
)  # fmt: skip
def test_jobs_that_cannot_be(
    settings: list[str], message: str, plate: Path, two_channels: Path, refused: Callable[..., None]
) -> None:
    refused(settings, message)


@pytest.fixture
def two_channels(plate: Path, noise: Callable[..., np.ndarray]) -> Path:
    """Beside the plate: one of a single well with two channels, and an image without truth."""
    pixels = noise((2, 48, 48))
    place = address(plate.parent / "two.zarr")
    write_image(place, "C/1/0", pixels, channels=("a", "b"))
    create_plate(place, name="two", wells=[("C", "1", 1)])
    truth = np.zeros((1, 48, 48), np.uint32)
    truth[0, 8:30, 8:30] = 1
    write_stack(place, open_collection(place).images[0], truth, name="truth")
    write_image(address(plate.parent / "empty.zarr"), "", pixels[:1])
    return plate.parent / "two.zarr"


def test_chosen_channels_make_unlike_stores_alike(plate: Path, two_channels: Path) -> None:
    work = job(TrainJob, {"data": ["plate.zarr", "two.zarr"], "folder": "out", "channel": [0]})
    learning, validating = split(work)
    assert {e.pair[0].shape[0] for e in (*learning, *validating)} == {1}
    assert len(learning) + len(validating) == 7


def test_the_example_is_a_job_at_its_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["train", "--example"]) == 0
    table = tomllib.loads(capsys.readouterr().out)
    assert job(TrainJob, table | {"data": ["p"], "folder": "f"}) == TrainJob(data=("p",), folder="f")


# Which wells validate


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plate of 12 wells with two fields each; the one object of a field has the number of its well."""
    place = tmp_path_factory.mktemp("many") / "many.zarr"
    wells_of(place, [(row, str(column)) for row in "AB" for column in range(1, 7)], fields=2)
    return place


def wells_of(place: Path, wells: list[tuple[str, str]], *, fields: int = 1) -> None:
    for number, (row, column) in enumerate(wells, 1):
        for field in range(fields):
            path, stack = f"{row}/{column}/{field}", np.zeros((1, 8, 8), np.uint32)
            stack[0, 2:6, 2:6] = number
            write_image(address(place), path, stack.astype(np.uint16))
            image = replace(
                open_collection(address(place / path)).images[0], address=address(place), path=path
            )
            write_stack(address(place), image, stack, name="truth")
    create_plate(address(place), name="plate", wells=[(*well, fields) for well in wells])


def sides(*data: object, **table: object) -> tuple[list[int], list[int]]:
    """The wells of the examples on each side, by the objects that are really in them."""
    work = job(TrainJob, {"data": [str(store) for store in data], "folder": "out"} | table)
    learning, validating = split(work)
    return [int(e.pair[1].max()) for e in learning], [int(e.pair[1].max()) for e in validating]


def test_all_fields_of_a_well_are_on_one_side(many: Path) -> None:
    learning, validating = sides(many)
    assert sorted(learning + validating) == sorted(list(range(1, 13)) * 2)
    assert learning and validating and not set(learning) & set(validating)
    assert len(validating) < len(learning)


def test_the_split_is_that_of_the_plate_and_not_of_its_address(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a training that goes on elsewhere would be validated on wells that it has learnt."""
    there = sides(many)
    monkeypatch.chdir(many.parent)
    assert sides("many.zarr") == sides("./many.zarr") == sides(f"../{many.parent.name}/many.zarr") == there
    (tmp_path / "elsewhere").mkdir()
    shutil.copytree(many, tmp_path / "elsewhere" / "many.zarr")
    assert sides(tmp_path / "elsewhere" / "many.zarr") == there
    # A store that is named twice is not split against itself.
    learning, validating = sides("many.zarr", "./many.zarr", many)
    assert not set(learning) & set(validating) and len(learning + validating) == 3 * 24


def test_neither_side_is_ever_empty(tmp_path: Path) -> None:
    """By chance both of two wells are for training, four times in five, or both for validation, once in a hundred."""
    names: dict[tuple[bool, bool], str] = {}
    for number in range(10_000):
        name = f"p{number}.zarr"
        first, second = (_digest(f"{name}/A/{column}") % VALIDATION_SHARE == 0 for column in (1, 2))
        names.setdefault((first, second), name)
    assert len(names) == 4
    wells_of(tmp_path / "plate.zarr", [("A", "1"), ("A", "2")])
    for (first, second), name in names.items():
        shutil.copytree(tmp_path / "plate.zarr", tmp_path / name)
        learning, validating = sides(tmp_path / name)
        assert sorted(learning + validating) == [1, 2] and len(validating) == 1
        assert first == second or validating == [1 if first else 2]


def test_images_of_one_name_in_many_folders_are_not_all_on_one_side(tmp_path: Path) -> None:
    image, stack = np.zeros((1, 8, 8), np.uint16), np.ones((1, 8, 8), np.uint32)
    for number in range(30):
        place = address(tmp_path / str(number) / "slide.zarr")
        write_image(place, "", image)
        write_stack(place, open_collection(place).images[0], stack * (number + 1), name="truth")
    learning, validating = sides(*(tmp_path / str(number) / "slide.zarr" for number in range(30)))
    assert sorted(learning + validating) == list(range(1, 31))
    assert len(validating) == 2  # one would be held in any case


def test_validation_stores_leave_all_data_to_training(many: Path, tmp_path: Path) -> None:
    # A store of the same name elsewhere, as in train/plate.zarr and validation/plate.zarr, is another one.
    wells_of(tmp_path / "many.zarr", [("A", "1"), ("A", "2")])
    learning, validating = sides(many, validation=[str(tmp_path / "many.zarr")])
    assert len(learning) == 24 and validating == [1, 2]


def test_a_well_that_cannot_be_read_is_named(
    many: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(many, tmp_path / "many.zarr")
    shutil.rmtree(tmp_path / "many.zarr" / "B" / "2")
    with caplog.at_level("WARNING", logger="flows"):
        learning, validating = sides(tmp_path / "many.zarr")
    assert len(set(learning + validating)) == 11
    assert "left out" in caplog.text and "B/2" in caplog.text


def test_planes_are_normalised_as_they_are_when_segmented(
    tmp_path: Path, run_job: Callable[..., object], module_of: Callable[[str], str]
) -> None:
    """One offset and scale for all planes of an image: a dark plane stays dark."""
    pixels = np.random.default_rng(1).integers(0, 1000, (3, 40, 40)).astype(np.uint16)
    pixels[1] //= 10
    place = address(tmp_path / "z.zarr")
    write_image(place, "", pixels, axes=("z", "y", "x"))
    stack = np.zeros((1, 40, 40), np.uint32)
    stack[0, 5:20, 5:20] = 1
    image = open_collection(place).images[0]
    for z in range(3):
        write_stack(place, image, stack, name="truth", plane=(0, z), overwrite=z > 0)
    name = module_of(
        """
        def seen(block):
            np.save(f"{block.mean():.6f}.npy", block)
            return block[:1] > 0.5
        seen.link, seen.layers = "touch", 1
        """
    )
    run_job(place, segmenter=f"{name}:seen", name="n", tiling={"core": 64})
    blocks = [np.load(file) for file in tmp_path.glob("*.npy")]
    assert len(blocks) == 3
    other = tmp_path / "other.zarr"
    wells_of(other, [("A", "1"), ("A", "2")])
    learning, _ = split(job(TrainJob, {"data": [str(place)], "validation": [str(other)], "folder": "out"}))
    for example in learning:
        assert any(np.array_equal(example.pair[0], block) for block in blocks)


def test_flat_truth_beside_a_z_stack_belongs_to_the_projection(plate: Path) -> None:
    flat = open_collection(address(plate)).images[0]
    pixels = flat.read((0, 0), (0,), 0, flat.size[0], 0, flat.size[1])[0]
    stack = address(plate.parent / "stack.zarr")
    write_image(stack, "", np.stack([pixels // 2, pixels])[None], axes=("c", "z", "y", "x"))
    truth = read_stack(address(plate), flat.path, "truth")
    write_image(stack, "labels/truth", truth[0].astype(np.uint32), axes=("y", "x"))
    job = TrainJob(data=("stack.zarr",), folder="out")
    with pytest.raises(
        BadArgument, match=r"labels 'truth' are flat and the image has 2 planes.*set project=max"
    ):
        list(_examples(job, ["stack.zarr"]))
    (learned,) = _examples(replace(job, project="max"), ["stack.zarr"])
    np.testing.assert_array_equal(learned.pair[1], truth[:1])
    same = next(_examples(job, [str(plate)]))
    np.testing.assert_array_equal(learned.pair[0], same.pair[0])
