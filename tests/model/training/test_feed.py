"""Batches that are made ahead: in order, the same by a thread and by processes, and ended with the training."""

import multiprocessing
import threading
from contextlib import closing

import numpy as np
import pytest
import torch

from model.methods.layering import Layering
from model.networks.unet import UNetShape
from model.samples.augment import Augment
from model.samples.patches import Patches
from model.training.feed import AHEAD, Batches, feed, processes_for


@pytest.fixture
def batches(crossing: tuple[np.ndarray, np.ndarray]) -> Batches:
    method = Layering(shape=UNetShape(width=2, poolings=1))
    patches = Patches([crossing], crop_px=32, augment=Augment(), prepare=method.prepare, seed=0)
    return Batches(patches, method, 2, 0)


@pytest.mark.parametrize("processes", [0, 2])
def test_steps_come_in_order_whoever_makes_them(batches: Batches, processes: int) -> None:
    with closing(feed(batches, 5, processes=processes)) as fed:
        for step in range(5, 5 + 2 * AHEAD + 2):
            batch, targets = next(fed)
            expected, encoded = batches[step]
            assert torch.equal(batch.images, expected.images)
            assert torch.equal(targets.objects, encoded.objects) and torch.equal(targets.pairs, encoded.pairs)


def test_closing_ends_the_thread_and_the_processes(batches: Batches) -> None:
    threads = threading.active_count()
    with closing(feed(batches, 0, processes=0)) as fed:
        next(fed)
    assert threading.active_count() == threads
    with closing(feed(batches, 0, processes=2)) as fed:
        next(fed)
        assert len(multiprocessing.active_children()) == 2
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("processes", [0, 1])
def test_an_error_in_a_batch_reaches_the_training(batches: Batches, processes: int) -> None:
    broken = Batches(batches.patches, batches.method, -1, 0)
    with closing(feed(broken, 0, processes=processes)) as fed, pytest.raises(ValueError):
        next(fed)


def test_processes_feed_gpus_only() -> None:
    assert processes_for(torch.device("cpu")) == 0
    assert processes_for(torch.device("cuda")) >= 1
