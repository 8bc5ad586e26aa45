"""Every dataset on small files in the layout of its source: pixels, truth, splits, and what is missing."""

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy.io import savemat

from pipeline.datasets.published import (
    ac3ac4,
    bbbc010,
    bbbc039,
    ccdb6843,
    cvppp,
    dsb2018,
    isbi2012,
    isbi2014,
    mfish,
)
from pipeline.datasets.published.catalogue import DATASETS, dataset
from pipeline.datasets.sample import Sample
from pipeline.errors import BadArgument, BadStore
from pipeline.stack import check_stack, masks_of


def box(shape, y0, y1, x0, x1):
    mask = np.zeros(shape, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def png(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def tif(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, array, **options)


def names(samples):
    return [sample.name for sample in samples]


def objects(sample):
    """The masks of a sample, each as the frozen set of its pixels, whatever its id and layer."""
    return {frozenset(zip(*np.nonzero(mask), strict=True)) for _, mask in masks_of(sample.truth)}


def pixels(mask):
    return frozenset(zip(*np.nonzero(mask), strict=True))


SHAPE = (520, 696)
WORMS = [box(SHAPE, 60, 70, 130, 200), box(SHAPE, 50, 100, 150, 158), box(SHAPE, 0, 20, 0, 20)]


@pytest.fixture
def worms(tmp_path):
    """Wells A01, A10, D02 with three worms, two of which cross, one outside the crop; C05 without masks."""
    for index, well in enumerate(("A01", "A10", "C05", "D02")):
        name = f"1649_1109_0003_Amp5-1_B_20070424_{well}_w2_15ADF48D-C09E.tif"
        tif(tmp_path / "images" / name, np.full(SHAPE, 100 + index, np.uint16))
        tif(tmp_path / "images" / name.replace("_w2_", "_w1_"), np.zeros(SHAPE, np.uint16))
        for n, mask in enumerate(WORMS, start=1):
            if well != "C05":
                png(tmp_path / "masks" / f"{well}_{n:02d}_ground_truth.png", mask.astype(np.uint8) * 255)
    return tmp_path


def test_bbbc010_keeps_crossing_worms_whole(worms):
    sample = next(bbbc010.read(worms))
    assert (sample.name, sample.group, sample.well) == ("A01", "A01", ("A", "1"))
    assert (
        sample.image.shape == (1, *SHAPE) and sample.image.dtype == np.uint16 and sample.image[0, 0, 0] == 100
    )
    assert objects(sample) == {pixels(mask) for mask in WORMS}
    assert len(sample.truth) == 2


def test_bbbc010_crop_cuts_image_and_truth_and_drops_worms_outside(worms):
    sample = next(bbbc010.read(worms, crop=True))
    assert sample.image.shape == (1, 448, 448)
    assert objects(sample) == {pixels(mask[50:498, 120:568]) for mask in WORMS[:2]}
    assert sorted(np.unique(sample.truth)) == [0, 1, 2]


def test_bbbc010_splits_are_by_well(worms):
    assert names(bbbc010.read(worms)) == ["A01", "A10", "C05", "D02"]
    assert names(bbbc010.read(worms, split="train")) == ["A01", "C05"]
    assert names(bbbc010.read(worms, split="validation")) == ["A10"]
    assert names(bbbc010.read(worms, split="test")) == ["D02"]


def test_bbbc010_without_masks_has_no_truth(worms):
    assert [sample.truth is None for sample in bbbc010.read(worms)] == [False, False, True, False]


def test_bbbc010_says_which_mask_has_the_wrong_size(worms):
    png(worms / "masks" / "A01_04_ground_truth.png", np.zeros((9, 9), np.uint8))
    with pytest.raises(BadStore, match=r"A01_04.*\(520, 696\).*\(9, 9\)"):
        next(bbbc010.read(worms))


NUCLEI = np.stack([box((20, 13), 2, 8, 2, 8), box((20, 13), 8, 12, 5, 13), box((20, 13), 7, 9, 2, 6)])


def prepared(folder, name):
    image = np.arange(260, dtype=np.uint16).reshape(20, 13)
    folder.mkdir(parents=True, exist_ok=True)
    packed = np.packbits(NUCLEI, axis=-1)
    np.savez(folder / f"{name}.npz", image=image, masks=packed, n=len(NUCLEI), hw=np.array([20, 13]))


def original(folder, name):
    grey = np.arange(260, dtype=np.uint8).reshape(20, 13)
    png(folder / name / "images" / f"{name}.png", np.dstack([grey, grey, grey, np.full_like(grey, 255)]))
    for n, mask in enumerate(NUCLEI):
        png(folder / name / "masks" / f"{n}.png", mask.astype(np.uint8) * 255)


def test_dsb2018_reads_both_layouts_alike(tmp_path):
    identifier = "00071198d059ba7f5914a526d124d28e6d010c92466da21d4a04cd5413362552"
    prepared(tmp_path / "a" / "prepared", identifier[:12])
    original(tmp_path / "b" / "stage1_train", identifier)
    one, two = next(dsb2018.read(tmp_path / "a")), next(dsb2018.read(tmp_path / "b"))
    assert one.name == two.name == identifier[:12]
    assert objects(one) == objects(two) == {pixels(mask) for mask in NUCLEI}
    assert one.image.dtype == np.uint16 and two.image.dtype == np.uint8 and two.image[0, 3, 4] == 43


def test_dsb2018_images_of_one_experiment_are_on_one_side_of_the_split(tmp_path):
    prepared(tmp_path, "aaaaaaaaaaaa")
    original(tmp_path / "original", "bbbbbbbbbbbb")
    held = dsb2018.VALIDATION_SIZES[-1]
    wide = np.zeros((1, *held), bool)
    wide[:, 3:9, 3:9] = True
    packed = np.packbits(wide, axis=-1)
    np.savez(
        tmp_path / "cccccccccccc.npz", image=wide[0] * np.uint8(90), masks=packed, n=1, hw=np.array(held)
    )
    train, validation = (list(dsb2018.read(tmp_path, split=split)) for split in ("train", "validation"))
    assert names(train) == ["aaaaaaaaaaaa"] and names(validation) == ["cccccccccccc"]
    assert validation[0].group == "260x347-dark"
    assert names(dsb2018.read(tmp_path / "original", split="train")) == ["bbbbbbbbbbbb"]
    assert dsb2018.family_of(np.full((520, 696), 9)) != dsb2018.family_of(np.full((520, 696), 2))


def test_dsb2018_names_the_broken_file(tmp_path):
    np.savez(tmp_path / "aaaaaaaaaaaa.npz", image=np.zeros((3, 3)))
    with pytest.raises(BadStore, match=r"aaaaaaaaaaaa.npz.*masks"):
        next(dsb2018.read(tmp_path))


def karyotype():
    """Two chromosomes of classes 1 and 2 that cross at 24 px, and a class 3 with a tiny overlap region."""
    classes = np.zeros((40, 40), np.uint8)
    classes[10:16, 2:30] = 1
    classes[2:30, 12:16] = 2
    classes[10:16, 12:16] = 255
    classes[34:38, 2:8] = 3
    classes[34:38, 8:10] = 255
    return classes


def test_mfish_gives_an_overlap_to_every_class_that_touches_it(tmp_path):
    for name in ("V130740", "V130741", "A050101"):
        folder = tmp_path / "MFISH_TIFF" / f"{name[:3]}__40"
        tif(folder / f"{name}K.tif", karyotype())
        tif(folder / f"{name}D.tif", np.full((40, 40), 7, np.uint8))
    shape = (40, 40)
    sample = next(mfish.read(tmp_path, split="train"))
    expected = {
        pixels(box(shape, 10, 16, 2, 30)),
        pixels(box(shape, 2, 30, 12, 16)),
        pixels(box(shape, 34, 38, 2, 8)),
    }
    assert objects(sample) == expected
    assert (sample.name, sample.group, sample.channels) == ("V130740", "V13", ("DAPI",))
    assert names(mfish.read(tmp_path, split="train")) == ["V130740", "V130741"]
    assert names(mfish.read(tmp_path, split="validation")) == ["A050101"]


CELLS = [[box((16, 18), 1, 9, 1, 9), box((16, 18), 5, 14, 5, 14)], [box((16, 18), 0, 4, 0, 17)]]


def column_of_cells(arrays):
    cells = np.empty((len(arrays), 1), object)
    for index, array in enumerate(arrays):
        cells[index, 0] = array
    return cells


def cervix(count, seed=1):
    rng = np.random.default_rng(seed)
    images = [rng.integers(0, 255, (16, 18), np.uint8) for _ in range(count)]
    truths = [column_of_cells([mask.astype(np.uint8) for mask in CELLS[i % 2]]) for i in range(count)]
    return images, truths


def save_73(path, variable, content):
    """Write cells as MATLAB 7.3 does: references to transposed arrays, in a row."""
    import h5py

    with h5py.File(path, "w", userblock_size=512) as file:

        def cell(array):
            if array.dtype == object:
                inner = np.array([[cell(value).ref for value in array.ravel()]], h5py.ref_dtype)
                return file.create_dataset(f"#refs#/{len(file['#refs#'])}", data=inner)
            return file.create_dataset(f"#refs#/{len(file['#refs#'])}", data=array.T)

        file.create_group("#refs#")
        references = np.array([[cell(value).ref for value in content]], h5py.ref_dtype)
        file[variable] = references
    with open(path, "r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, HDF5 schema 1.00 .".ljust(124) + b"\x00\x02IM")


@pytest.mark.parametrize("layout", ["single files", "cell arrays", "cell arrays 7.3"])
def test_isbi2014_reads_its_layouts_alike(tmp_path, layout):
    images, truths = cervix(5)
    folder = tmp_path / "Dataset" / "Synthetic"
    folder.mkdir(parents=True)
    if layout == "cell arrays 7.3":
        save_73(folder / "trainset.mat", "trainset", images)
        save_73(folder / "trainset_GT.mat", "train_Cytoplasm", truths)
    else:
        savemat(folder / "isbi_train_GT.mat", {"train_Cytoplasm": column_of_cells(truths)})
    if layout == "cell arrays":
        savemat(folder / "isbi_train.mat", {"ISBI_Train": column_of_cells(images)})
    if layout == "single files":
        for n, image in enumerate(images, start=1):
            tif(folder / f"{n}.tif", image)
    samples = list(isbi2014.read(tmp_path))
    assert names(samples) == [f"train{n:03d}" for n in range(1, 6)]
    for index, sample in enumerate(samples):
        np.testing.assert_array_equal(sample.image[0], images[index])
        assert objects(sample) == {pixels(mask) for mask in CELLS[index % 2]}
    assert names(isbi2014.read(tmp_path, split="validation")) == ["train005"]


def test_isbi2014_test_images_follow_the_paper(tmp_path):
    for part, count in (("train", 2), ("test", 4)):
        images, truths = cervix(count)
        name = {"train": ("isbi_train", "ISBI_Train"), "test": ("isbi_test90", "ISBI_Test90")}[part]
        savemat(tmp_path / f"{name[0]}.mat", {name[1]: column_of_cells(images)})
        savemat(tmp_path / f"{name[0]}_GT.mat", {f"{part}_Cytoplasm": column_of_cells(truths)})
    assert names(isbi2014.read(tmp_path, split="test")) == ["test002", "test004"]
    assert names(isbi2014.read(tmp_path, split="train")) == ["test001", "test003", "train001", "train002"]


def test_isbi2014_images_that_are_not_there_are_left_out(tmp_path):
    images, truths = cervix(4)
    savemat(tmp_path / "isbi_train_GT.mat", {"train_Cytoplasm": column_of_cells(truths)})
    tif(tmp_path / "3.tif", images[2])
    assert names(isbi2014.read(tmp_path)) == ["train003"]


def test_isbi2014_says_what_is_wrong_with_a_mat_file(tmp_path):
    savemat(tmp_path / "isbi_train_GT.mat", {"something": np.zeros(3)})
    with pytest.raises(BadStore, match="train_Cytoplasm"):
        isbi2014.read(tmp_path)
    (tmp_path / "isbi_train_GT.mat").write_bytes(b"not matlab")
    with pytest.raises(BadStore, match=r"isbi_train_GT\.mat"):
        isbi2014.read(tmp_path)


INSIDE = np.array([[255, 255, 0, 255], [255, 0, 255, 255], [0, 255, 0, 255]], np.uint8)


def test_isbi2012_png_objects_are_the_insides(tmp_path):
    for z in range(24):
        png(tmp_path / "image" / f"{z}.png", np.full((3, 4), z, np.uint8))
        png(tmp_path / "label" / f"{z}.png", INSIDE)
    sample = next(isbi2012.read(tmp_path))
    assert len(objects(sample)) == 3
    assert names(isbi2012.read(tmp_path, split="train")) == [f"train_{z:03d}" for z in range(19)]
    assert names(isbi2012.read(tmp_path, split="validation")) == [f"train_{z:03d}" for z in range(20, 24)]
    assert [sample.image[0, 0, 0] for sample in isbi2012.read(tmp_path)] == list(range(24))


def test_isbi2012_tiff_stacks(tmp_path):
    volume = np.arange(3, dtype=np.uint8)[:, None, None] * np.ones((1, 3, 4), np.uint8)
    for name, data in (
        ("train-volume", volume),
        ("train-labels", np.stack([INSIDE] * 3)),
        ("test-volume", volume),
    ):
        tif(tmp_path / f"{name}.tif", data, photometric="minisblack")
    samples = {sample.name: sample for sample in isbi2012.read(tmp_path)}
    assert sorted(samples) == [f"{part}_{z:03d}" for part in ("test", "train") for z in range(3)]
    assert samples["test_001"].truth is None and len(objects(samples["train_002"])) == 3
    assert samples["train_002"].image[0, 1, 1] == 2


@pytest.mark.parametrize("suffix", [".h5", ".tif"])
def test_ac3ac4_is_read_slice_by_slice(tmp_path, suffix):
    import h5py

    labels = np.zeros((83, 5, 6), np.uint32)
    labels[:, 1:3], labels[:, 3:] = 70_000, 4
    for volume in ("AC3", "AC4"):
        for name, data in (("inputs", labels.astype(np.uint8)), ("labels", labels)):
            path = tmp_path / "AC3-AC4" / f"{volume}_{name}{suffix}"
            path.parent.mkdir(exist_ok=True)
            if suffix == ".tif":
                tif(path, data, photometric="minisblack")
            else:
                with h5py.File(path, "w") as file:
                    file["main"] = data
    test = list(ac3ac4.read(tmp_path, split="test"))
    assert len(test) == 83 and test[-1].name == "AC3_082"
    np.testing.assert_array_equal(test[-1].truth, labels[None, 82])
    assert names(ac3ac4.read(tmp_path, split="validation")) == ["AC4_080", "AC4_081", "AC4_082"]
    assert len(list(ac3ac4.read(tmp_path, split="train"))) == 80


def test_ac3ac4_volumes_of_different_shape_are_refused(tmp_path):
    tif(tmp_path / "AC4_inputs.tif", np.zeros((3, 5, 6), np.uint8), photometric="minisblack")
    tif(tmp_path / "AC4_labels.tif", np.zeros((3, 5, 7), np.uint16), photometric="minisblack")
    with pytest.raises(BadStore, match=r"AC4.*\(3, 5, 6\).*\(3, 5, 7\)"):
        ac3ac4.read(tmp_path)


def test_hdf5_without_the_array_is_refused(tmp_path):
    import h5py

    with h5py.File(tmp_path / "AC4_inputs.h5", "w") as file:
        file["volumes"] = np.zeros((2, 3, 3))
    with pytest.raises(BadStore, match=r"'main'.*volumes"):
        ac3ac4.read(tmp_path)


def u2os(folder):
    """Two nuclei that touch (values 1 and 2), one of 9 px, in three fields."""
    values = np.zeros((30, 40), np.uint8)
    values[2:12, 2:12], values[2:12, 12:20], values[20:23, 20:23] = 1, 2, 1
    alpha = np.full_like(values, 255)
    for index, well in enumerate(("A02_s1", "B10_s3", "P24_s9")):
        stem = f"IXMtest_{well}_w1051DAA7C-7042"
        tif(folder / "images" / f"{stem}.tif", np.full((30, 40), index, np.uint16))
        png(folder / "masks" / f"{stem}.png", np.dstack([values, values * 0, values * 0, alpha]))
        lists = folder / "metadata" / ("training.txt", "validation.txt", "test.txt")[index]
        lists.parent.mkdir(exist_ok=True)
        lists.write_text(f"{stem}.png\n")
    (folder / "masks" / "._IXMtest_A02_s1_w1051DAA7C-7042.png").write_bytes(b"macOS")
    return values


def test_bbbc039_touching_nuclei_are_two_and_specks_none(tmp_path):
    values = u2os(tmp_path)
    sample = next(bbbc039.read(tmp_path))
    assert objects(sample) == {
        pixels(box(values.shape, 2, 12, 2, 12)),
        pixels(box(values.shape, 2, 12, 12, 20)),
    }
    assert sample.well == ("A", "2") and sample.image.dtype == np.uint16
    assert len(objects(next(bbbc039.read(tmp_path, min_area_px=0)))) == 3


def test_bbbc039_splits_are_the_official_lists(tmp_path):
    u2os(tmp_path)
    assert [
        names(bbbc039.read(tmp_path, split=split))[0][8:11] for split in ("train", "validation", "test")
    ] == [
        "A02",
        "B10",
        "P24",
    ]
    (tmp_path / "metadata" / "test.txt").write_text("IXMtest_Z99.png\n")
    with pytest.raises(BadStore, match="IXMtest_Z99"):
        bbbc039.read(tmp_path, split="test")


def test_ccdb6843_cells_from_two_files_overlap(tmp_path):
    shape = (40, 50)
    first, second = box(shape, 2, 22, 2, 22), box(shape, 10, 30, 10, 40)
    other, speck = box(shape, 20, 38, 2, 9), box(shape, 36, 39, 45, 48)
    for name in ("F01_120", "F04_1056"):
        tif(tmp_path / "MP6843_img_full" / f"{name}w1.TIF", np.full(shape, 3, np.uint8))
        tif(tmp_path / "MP6843_img_full" / f"{name}w2.TIF", np.zeros(shape, np.uint8))
        plane = (first | other | speck).astype(np.uint8) * 255
        tif(tmp_path / "MP6843_seg" / f"{name}_GT_01.tif", np.dstack([plane] * 3), photometric="rgb")
    tif(tmp_path / "MP6843_seg" / "F01_120_GT_02.tif", second.astype(np.uint8) * 255)
    samples = {sample.name: sample for sample in ccdb6843.read(tmp_path)}
    joined = pixels(first | other)
    assert objects(samples["F01_120"]) == {joined, pixels(second)}
    assert objects(samples["F04_1056"]) == {joined}
    assert samples["F01_120"].image.max() == 3
    assert names(ccdb6843.read(tmp_path, split="test")) == ["F04_1056"]


def test_cvppp_reads_colour_and_labels_by_subset(tmp_path):
    label = np.array([[0, 1, 1], [2, 2, 7]], np.uint8)
    colour = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    for subset, plant, labelled in (
        ("A1", "plant001", True),
        ("A1", "plant002", True),
        ("A1", "plant003", False),
        ("A2", "plant001", True),
    ):
        folder = tmp_path / "CVPPP2017_LSC_training" / "training" / subset
        png(folder / f"{plant}_rgb.png", colour)
        png(folder / f"{plant}_fg.png", label)
        if labelled:
            Image.fromarray(label, mode="L").convert("P").save(folder / f"{plant}_label.png")
    first = next(cvppp.read(tmp_path, split="train"))
    assert first.name == "A1_plant001" and first.channels == ("red", "green", "blue")
    np.testing.assert_array_equal(first.image, np.moveaxis(colour[..., :3], -1, 0))
    assert names(cvppp.read(tmp_path, split="validation")) == ["A1_plant002"]
    assert [sample.truth for sample in cvppp.read(tmp_path, split="test")] == [None]
    assert names(cvppp.read(tmp_path, subset="A2")) == ["A2_plant001"]
    with pytest.raises(BadArgument, match="A9"):
        cvppp.read(tmp_path, subset="A9")


def test_cvppp_labels_keep_their_values(tmp_path):
    label = np.array([[0, 1, 1], [2, 2, 7]], np.uint8)
    png(tmp_path / "plant001_rgb.png", np.zeros((2, 3, 3), np.uint8))
    picture = Image.fromarray(label, mode="P")
    picture.putpalette([value for n in range(256) for value in (255 - n, n, 9)])
    picture.save(tmp_path / "plant001_label.png")
    np.testing.assert_array_equal(next(cvppp.read(tmp_path)).truth, label[None])


@pytest.mark.parametrize("name", DATASETS)
def test_every_dataset_says_who_made_it_and_refuses_what_is_not_there(name, tmp_path):
    this = dataset(name)
    assert this.name == this._module.NAME == name
    assert this.title and this.citation and this.licence and this.splits[-1] == "all"
    assert all(value.split(":")[0] in ("md5", "sha256") for value in this.checksums.values())
    with pytest.raises(BadArgument, match="tomorrow"):
        this.read(tmp_path, split="tomorrow")
    with pytest.raises(BadStore, match="expected"):
        this.read(tmp_path)
    with pytest.raises(BadStore, match="no-such-folder"):
        this.read(tmp_path / "no-such-folder")


def test_a_split_without_images_says_so(worms):
    (worms / "images" / "1649_1109_0003_Amp5-1_B_20070424_D02_w2_15ADF48D-C09E.tif").unlink()
    with pytest.raises(BadStore, match="'test'"):
        bbbc010.read(worms, split="test")


def test_truths_obey_the_law_of_the_stack(worms):
    for sample in bbbc010.read(worms, split="train"):
        if sample.truth is not None:
            check_stack(sample.truth)


@pytest.mark.parametrize(
    ("asked", "meant"), [("bbc010", "bbbc010"), ("DSB2018", "dsb2018"), ("m-fish", "mfish")]
)
def test_a_misspelt_name_gets_a_suggestion(asked, meant):
    with pytest.raises(BadArgument, match=f"{asked}.*did you mean '{meant}'"):
        dataset(asked)


def test_an_image_that_cannot_be_read_is_named(worms):
    (worms / "masks" / "A01_01_ground_truth.png").write_bytes(b"broken")
    with pytest.raises(BadStore, match="A01_01_ground_truth"):
        next(bbbc010.read(worms))


def test_lzw_is_read_without_the_optional_codecs(tmp_path):
    (tmp_path / "V13").mkdir()
    Image.fromarray(karyotype()).save(tmp_path / "V13" / "V130740K.tif", compression="tiff_lzw")
    Image.fromarray(karyotype() // 2).save(tmp_path / "V13" / "V130740D.tif", compression="tiff_lzw")
    sample = next(mfish.read(tmp_path))
    np.testing.assert_array_equal(sample.image[0], karyotype() // 2)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "../x"}, "letters"),
        ({"image": np.zeros((4, 4))}, r"\(C, y, x\)"),
        ({"channels": ("a", "b")}, "one name per channel"),
        ({"truth": np.zeros((1, 4, 4), np.int64)}, "uint32"),
        ({"truth": np.zeros((1, 4, 5), np.uint32)}, "one size"),
    ],
)
def test_a_sample_is_checked(changes, words):
    whole = {"name": "a", "image": np.zeros((1, 4, 4)), "truth": None, "group": "a"}
    with pytest.raises(BadArgument, match=words):
        Sample(**(whole | changes))
