import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from data_builders.sources.drawn.phantom_chest import phantom_chest
from data_builders.splits.near_images import MAX_DISTANCE, SIDE, dhash, near_pairs

NUM_BITS = SIDE * SIDE


@pytest.fixture(scope="module")
def pictures():
    return [sample.image for sample in phantom_chest(patients=30, images_per_patient=1, seed=4)]


def bits_of(image: Image.Image) -> np.ndarray:
    found = dhash(image)
    assert found is not None
    return found


def apart(one: Image.Image, other: Image.Image) -> int:
    return int((bits_of(one) != bits_of(other)).sum())


def test_another_format_size_or_brightness_is_near(pictures):
    for image in pictures:
        jpeg = io.BytesIO()
        image.save(jpeg, "JPEG", quality=85)
        for copy in (Image.open(jpeg), image.resize((256, 256)), ImageEnhance.Brightness(image).enhance(0.9)):
            assert apart(image, copy) <= MAX_DISTANCE


def test_images_of_different_patients_are_not_near(pictures):
    distances = [apart(one, other) for k, one in enumerate(pictures) for other in pictures[:k]]
    assert min(distances) > MAX_DISTANCE


def test_a_flat_image_has_no_hash():
    assert dhash(Image.new("L", (64, 64), 120)) is None


@given(st.integers(0, 20), st.integers(0, 2**32 - 1))
def test_a_pair_is_found_whatever_bits_differ(distance, seed):
    rng = np.random.default_rng(seed)
    hashes = rng.random((20, NUM_BITS)) < 0.5
    hashes[1] = hashes[0]
    flipped = rng.choice(NUM_BITS, size=distance, replace=False)
    hashes[1, flipped] ^= True
    found = list(near_pairs(hashes, [n % 2 for n in range(20)]))
    assert found == ([(0, 1, distance)] if distance <= MAX_DISTANCE else [])


def test_pairs_within_one_split_are_no_leak():
    same = np.ones((3, NUM_BITS), dtype=bool)
    assert list(near_pairs(same, [0, 0, 0])) == []
    assert list(near_pairs(same, [0, 0, 1])) == [(0, 2, 0), (1, 2, 0)]
