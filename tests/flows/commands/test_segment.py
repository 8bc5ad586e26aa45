"""The command line of segment: options, job files, --set, --example."""

import tomllib

import pytest

from flows.cli import run as command
from flows.execution import executors
from flows.jobs import SegmentJob, TrainJob, WatchJob, as_table, example, job, read_toml, with_settings
from pipeline.errors import BadArgument
from pipeline.store.places.address import address


def test_the_example_is_a_job_at_its_defaults(capsys, tmp_path):
    assert command(["segment", "--example"]) == 0
    text = capsys.readouterr().out
    table = tomllib.loads(text) | {"source": "x.zarr"}
    assert job(SegmentJob, table) == SegmentJob(source="x.zarr")
    assert text == example(SegmentJob)


def test_every_key_of_the_example_is_explained(capsys):
    lines = example(SegmentJob).splitlines()
    for before, line in zip(lines, lines[1:]):
        if ("=" in line and not line.startswith("# ")) or line.endswith("="):
            assert before.startswith("# "), line


def test_a_job_survives_the_way_through_a_table():
    made = SegmentJob(source="a", channel=("DAPI", 1), tiling={"core": 7}, filters={"min_area": 3})
    assert job(SegmentJob, as_table(made)) == made


@pytest.mark.parametrize(
    ("setting", "place", "value"),
    [
        ("tiling.core=2048", ("tiling", "core"), 2048),
        ("filters.min_area=12", ("filters", "min_area"), 12),
        ("normalise.kind=meanstd", ("normalise", "kind"), "meanstd"),
        ('normalise.scope="plate"', ("normalise", "scope"), "plate"),
        ("overwrite=true", ("overwrite",), True),
        ("name=cells", ("name",), "cells"),
        ('channel=["DAPI", 1]', ("channel",), ("DAPI", 1)),
        ("execution.executor=tcp://host:8786", ("execution", "executor"), "tcp://host:8786"),
    ],
)
def test_settings_reach_the_job(setting, place, value):
    made = job(SegmentJob, with_settings({"source": "a"}, [setting]))
    for name in place:
        made = getattr(made, name)
    assert made == value


def test_options_win_over_the_file_and_settings_over_options(image_at, noise, bright, tmp_path, table_of):
    store = image_at("a.zarr", noise((50, 50)))
    file = tmp_path / "job.toml"
    file.write_text(
        f'source = "{store}"\nsegmenter = "{bright}"\nname = "file"\n[filters]\nmin_area = 1\n[tiling]\ncore = 32\n'
    )
    assert command(["segment", str(file)]) == 0
    assert command(["segment", str(file), "--name", "option", "--set", "filters.min_area=40"]) == 0
    assert command(["segment", str(file), "--name", "option", "--set", "name=setting"]) == 0
    small, large = table_of(store, "file"), table_of(store, "option")
    assert len(table_of(store, "setting")) == len(small) > len(large) > 0
    assert large.area_px.min() >= 40 > small.area_px.min()
    assert large.area_px.tolist() == small.area_px[small.area_px >= 40].tolist()


def test_the_first_line_says_which_model_runs(image_at, noise, capsys):
    store = image_at("a.zarr", noise((50, 50)))
    assert command(["segment", str(store), "--segmenter", "threshold"]) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith("model: threshold, device ")


def test_a_finished_run_says_so_and_computes_nothing(image_at, noise, counted, capsys, table_of):
    segmenter, calls = counted
    store = image_at("a.zarr", noise((50, 50)))
    words = ["segment", str(store), "--segmenter", segmenter, "--name", "n"]
    assert command(words) == 0
    capsys.readouterr()
    assert command(words) == 0
    objects = len(table_of(store, "n"))
    assert f"finished before, {objects} objects" in capsys.readouterr().out and calls() == 1


@pytest.mark.parametrize(
    ("words", "message", "code"),
    [
        (["segment"], "expected a store or a job file", 1),
        (["segment", "no.toml"], "no such job file", 1),
        (["segment", "a.zarr", "--set", "tiling"], "expected key=value", 1),
        (["segment", "a.zarr", "--set", "name.x.y=1"], "name", 1),
        (["segment", "a.zarr", "--segmenter", "nocolon"], "no such store", 1),
        (["segment", "a.zarr", "--copy-images"], "add --output", 1),
        (["segment", "a.zarr", "--model", "a", "--segmenter", "b"], "got both", 1),
        (["segment", "a.zarr", "--colour", "red"], "colour", 2),
        (["segment", "a.zarr", "--workers", "0"], "workers", 1),
    ],
)
def test_wrong_words_are_one_line_and_a_code(words, message, code, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command(words) == code
    said = capsys.readouterr()
    assert message in (said.err + said.out).replace("\n", " ")
    assert "Traceback" not in said.err and list(tmp_path.iterdir()) == []


def test_a_job_file_that_is_no_toml(tmp_path, capsys):
    (tmp_path / "job.toml").write_text("source = ")
    assert command(["segment", str(tmp_path / "job.toml")]) == 1
    assert "not valid TOML" in capsys.readouterr().err
    with pytest.raises(Exception, match="not valid TOML"):
        read_toml(tmp_path / "job.toml")


def test_the_example_as_it_is_is_told_which_key_it_needs(tmp_path, capsys):
    assert command(["segment", "--example"]) == 0
    (tmp_path / "job.toml").write_text(capsys.readouterr().out)
    assert command(["segment", str(tmp_path / "job.toml")]) == 1
    said = capsys.readouterr().err
    assert (
        said
        == "platelayer: source: the job needs this key and has none (OME-Zarr image or plate, path or URL).\n"
    )


def test_every_missing_key_has_a_sentence():
    with pytest.raises(BadArgument) as told:
        job(TrainJob, {"name": "x"})
    assert "data: the job needs this key" in str(told.value) and "folder: the job needs this key" in str(
        told.value
    )
    with pytest.raises(BadArgument, match=r"job\.source: the job needs this key"):
        job(WatchJob, {"place": "p", "job": {}})


def test_a_job_file_may_be_a_url():
    address("memory://jobs").write_bytes("job.toml", b'source = "a.zarr"')
    assert read_toml("memory://jobs/job.toml") == {"source": "a.zarr"}
    with pytest.raises(BadArgument, match="no such job file"):
        read_toml("memory://jobs/other.toml")


def test_other_models_are_offered_but_not_the_one_that_runs(image_at, noise, capsys):
    store = image_at("a.zarr", noise((50, 50)))
    assert command(["segment", str(store), "--segmenter", "threshold"]) == 0
    others = capsys.readouterr().out.splitlines()[0].partition("others: ")[2].split(", ")
    assert "nuclei" in others and "threshold" not in others


def test_an_interrupted_run_goes_on(image_at, noise, module_of, tmp_path, table_of):
    flag = tmp_path / "flag"
    name = module_of(
        f"""
        import os
        def f(block):
            if not os.path.exists({str(flag)!r}):
                open({str(flag)!r}, "w")
                raise KeyboardInterrupt
            return block[:1] > 0.5
        f.link, f.layers = "touch", 1
        """
    )
    store = image_at("a.zarr", noise((50, 50)))
    words = ["segment", str(store), "--segmenter", f"{name}:f", "--name", "n"]
    try:
        code = command(words)
    except SystemExit as end:
        code = end.code
    assert code == 130
    assert not (store / ".platelayer/lock.json").exists()
    assert command(words) == 0 and len(table_of(store, "n"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "device cpu, precision float32, scale 1;"),
        (["--device", "cpu", "--scale", "0.5"], "device cpu, precision float32, scale 0.5;"),
        (["--level", "1"], "device cpu, precision float32, scale 1 of level 1;"),
    ],
)
def test_the_first_line_names_device_precision_and_scale(image_at, noise, capsys, words, said, monkeypatch):
    monkeypatch.setattr(executors, "has_gpu_driver", lambda: False)
    store = image_at("a.zarr", noise((64, 64)), levels=2)
    assert command(["segment", str(store), "--segmenter", "threshold", *words]) == 0
    assert said in capsys.readouterr().out.splitlines()[0]
