"""The segmenter: tiles agree with the whole image, memory that runs out, bad blocks."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn

from model import devices
from model.checkpoint import load_checkpoint, save_checkpoint
from model.errors import NoDevice
from model.methods.layering import Layering
from model.prediction.segmenter import FREE_SHARE, TorchSegmenter, load_segmenter
from model.stacking import components


@pytest.fixture
def folder(tiny: Layering, tmp_path: Path) -> Path:
    torch.manual_seed(4)
    network = tiny.network(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
    save_checkpoint(
        tmp_path, network=network, method=tiny, name="random", normalise={"kind": "meanstd"}, licence="CC0"
    )
    return tmp_path


@pytest.fixture
def segmenter(folder: Path) -> TorchSegmenter:
    return load_segmenter(folder, device="cpu")


def image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((1, height, width), dtype=np.float32)


def test_it_says_what_a_pipeline_must_know(segmenter: TorchSegmenter, tiny: Layering) -> None:
    assert (segmenter.link, segmenter.name, segmenter.layers, segmenter.channels) == ("touch", "random", 3, 1)
    assert segmenter.stride == 4 and segmenter.halo_px == tiny.network(1).halo_px
    assert segmenter.normalise == {"kind": "meanstd"} and segmenter.min_area == 4
    assert segmenter.digest == segmenter.card["digest"]


def test_masks_are_those_of_the_method_at_any_size(segmenter: TorchSegmenter, folder: Path) -> None:
    block = image(33, 46)
    masks = segmenter(block)
    assert masks.shape == (3, 33, 46) and masks.dtype == bool
    assert 0 < masks.mean() < 1
    checkpoint = load_checkpoint(folder)
    padded = torch.from_numpy(np.pad(block, ((0, 0), (0, 3), (0, 2)), mode="edge"))[None]
    with torch.inference_mode():
        plain = checkpoint.method.masks(checkpoint.method.outputs(checkpoint.network, padded))
    assert (masks != plain[0, :, :33, :46].numpy()).mean() < 1e-3


def test_a_model_that_judges_objects_answers_where_its_foreground_is_certain(
    segmenter: TorchSegmenter, folder: Path
) -> None:
    judging = load_segmenter(folder, device="cpu", settings={"object_threshold": 0.6})
    block = image(32, 48)
    answer = judging(block)
    outputs = judging._outputs(torch.from_numpy(block)[None])
    assert judging.judged and not segmenter.judged
    assert judging.digest != segmenter.digest
    np.testing.assert_array_equal(answer[:3], segmenter(block))
    np.testing.assert_array_equal(answer[3], outputs["foreground"][0, 0].numpy() > 0.6)
    stack = judging.method.decode({k: v[0].numpy() for k, v in outputs.items()}, (32, 48))
    assert stack.max() < components(answer[:3], min_area=4).max()


def test_a_defective_pixel_counts_no_more_than_a_very_bright_one(segmenter: TorchSegmenter) -> None:
    bright, defective = image(64, 64), image(64, 64)
    bright[0, 20, 30], defective[0, 20, 30] = 100, 1e7
    assert np.array_equal(segmenter(bright), segmenter(defective))


def test_tiles_with_their_halo_agree_with_the_whole_image(segmenter: TorchSegmenter) -> None:
    whole_image = image(150, 141)
    whole = segmenter(whole_image)
    halo = -(-segmenter.halo_px // segmenter.stride) * segmenter.stride
    different = 0
    for y in range(0, 150, 64):
        for x in range(0, 141, 64):
            top, left = max(y - halo, 0), max(x - halo, 0)
            tile = segmenter(whole_image[:, top : y + 64 + halo, left : x + 64 + halo])
            core = tile[:, y - top : y - top + 64, x - left : x - left + 64]
            different += int((core != whole[:, y : y + 64, x : x + 64]).sum())
    assert different <= 2  # pixels within rounding of a threshold


def test_memory_that_runs_out_is_met_by_pieces(
    segmenter: TorchSegmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    block, sizes = image(200, 150), []
    whole, masks = segmenter(block), segmenter._masks

    def small_memory(images: torch.Tensor) -> torch.Tensor:
        if images.shape[2] * images.shape[3] > 120 * 120:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        sizes.append(images.shape)
        return masks(images)

    monkeypatch.setattr(segmenter, "_masks", small_memory)
    assert (segmenter(block) != whole).sum() <= 2
    assert len(sizes) > 2


def test_a_block_that_needs_more_than_is_free_is_cut_before_it_is_tried(
    segmenter: TorchSegmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    block, pixels = image(200, 150), []
    whole, masks = segmenter(block), segmenter._masks
    most = 120 * 120

    def noted(images: torch.Tensor) -> torch.Tensor:
        pixels.append(images.shape[2] * images.shape[3])
        return masks(images)

    monkeypatch.setattr(segmenter, "_masks", noted)
    free = most * segmenter.bytes_per_px / FREE_SHARE
    monkeypatch.setattr("model.prediction.segmenter.free_bytes", lambda device: int(free) + 1)
    assert (segmenter(block) != whole).sum() <= 2
    assert len(pixels) > 1 and max(pixels) <= most


def test_a_block_too_small_to_cut_is_tried_whatever_is_free(
    segmenter: TorchSegmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.prediction.segmenter.free_bytes", lambda device: 0)
    assert segmenter(image(16, 16)).shape == (3, 16, 16)


def test_free_memory_is_what_machine_and_control_group_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(devices, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(devices, "GROUP", tmp_path)
    assert devices.free_bytes(cpu) is None
    (tmp_path / "meminfo").write_text("MemTotal:  9000 kB\nMemAvailable:  4000 kB\nHugePages_Total:  0\n")
    assert devices.free_bytes(cpu) == 4000 * 1024
    for name, text in (("max", "2000000"), ("current", "1500000"), ("stat", "anon 1\ninactive_file 100\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    assert devices.free_bytes(cpu) == 500_100
    (tmp_path / "memory.max").write_text("max\n")
    assert devices.free_bytes(cpu) == 4000 * 1024


def test_memory_for_nothing_is_an_error(segmenter: TorchSegmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(images: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(segmenter, "_masks", no_memory)
    with pytest.raises(MemoryError, match="do not fit"):
        segmenter(image(64, 64))


def test_other_errors_are_not_taken_for_memory(
    segmenter: TorchSegmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(images: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("something else")

    monkeypatch.setattr(segmenter, "_masks", broken)
    with pytest.raises(RuntimeError, match="something else"):
        segmenter(image(64, 64))


def test_blocks_of_a_cpu_are_computed_one_by_one_whoever_asks(segmenter: TorchSegmenter) -> None:
    blocks = [image(40, 48), image(33, 48), image(40, 48)]
    for block, answer in zip(blocks, segmenter.many(blocks), strict=True):
        assert np.array_equal(answer, segmenter(block))


def test_blocks_of_one_shape_are_batches_and_come_back_in_their_order(
    segmenter: TorchSegmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = [(40, 48), (33, 48), (40, 48), (40, 48), (33, 48)]
    blocks = [image(*shape) + 0.02 * index for index, shape in enumerate(shapes)]
    outputs, sizes = segmenter._outputs, []

    def noted(images: torch.Tensor) -> dict[str, torch.Tensor]:
        sizes.append(len(images))
        return outputs(images)

    monkeypatch.setattr(segmenter, "_outputs", noted)
    monkeypatch.setattr("model.prediction.segmenter.BATCH_PX", 2 * 40 * 48)
    answers = segmenter._at_once(blocks)
    assert sizes == [2, 1, 2]
    for block, answer in zip(blocks, answers, strict=True):
        alone = segmenter(block)
        assert answer.shape == alone.shape and (answer != alone).mean() < 1e-3


def test_without_overlaps_a_pixel_is_on_one_layer_and_the_digest_differs(folder: Path) -> None:
    both, largest = (load_segmenter(folder, device="cpu", overlaps=flag) for flag in (True, False))
    block = image(40, 40)
    assert both(block).sum(0).max() > 1 and largest(block).sum(0).max() == 1
    assert both.digest != largest.digest


def test_bfloat16_is_close_and_has_a_digest_of_its_own(folder: Path, segmenter: TorchSegmenter) -> None:
    quick = load_segmenter(folder, device="cpu", precision="bfloat16")
    block = image(40, 40)
    assert (quick(block) != segmenter(block)).mean() < 0.1
    assert quick.digest != segmenter.digest


@pytest.mark.parametrize("shape", [(2, 16, 16), (16, 16)])
def test_blocks_of_other_channels_are_refused(segmenter: TorchSegmenter, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"1 channel\(s\)"):
        segmenter(np.zeros(shape, np.float32))


def test_pixels_that_are_not_finite_are_refused(segmenter: TorchSegmenter) -> None:
    block = image(16, 16)
    block[0, 3, 3] = np.nan
    with pytest.raises(ValueError, match="finite"):
        segmenter(block)


def test_a_device_that_is_not_there_and_a_wrong_precision(folder: Path) -> None:
    with pytest.raises(NoDevice):
        load_segmenter(folder, device=f"cuda:{torch.cuda.device_count()}")
    with pytest.raises(ValueError, match="precision"):
        load_segmenter(folder, device="cpu", precision=cast(Any, "int8"))
