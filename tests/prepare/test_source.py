"""Prepared images held in memory."""

from __future__ import annotations

import numpy as np
import pytest

from anomaly.prepare.source import ArraySource

IMAGES = np.arange(7 * 4, dtype=np.float32).reshape(7, 1, 2, 2)


@pytest.mark.parametrize("batch", [1, 3, 7, 64])
def test_every_image_is_served_once_in_order_each_time(batch: int) -> None:
    source = ArraySource(IMAGES)
    for _ in range(2):
        batches = list(source.batches(batch))
        assert all(0 < len(part) <= batch for part in batches)
        np.testing.assert_array_equal(np.concatenate(batches), IMAGES)


def test_without_groups_every_image_is_its_own_patient() -> None:
    source = ArraySource(IMAGES)
    assert len(source) == 7
    assert source.groups.dtype == np.int64
    assert len(set(source.groups.tolist())) == 7


def test_groups_are_kept() -> None:
    groups = np.array([0, 0, 1, 1, 2, 2, 3])
    np.testing.assert_array_equal(ArraySource(IMAGES, groups).groups, groups)


def test_groups_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="7 images"):
        ArraySource(IMAGES, np.zeros(3, np.int64))


def test_no_images_serve_nothing() -> None:
    assert list(ArraySource(IMAGES[:0]).batches()) == []
