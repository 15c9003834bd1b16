import logging
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from data_builders import seeds
from data_builders.imaging.images import ImageError
from data_builders.pairs.lesion_heat import GivenBoxes, GivenMasks, heat_of_boxes
from data_builders.pairs.lesion_noise import (
    NoiseSettings,
    NoiseTally,
    alpha_bar,
    elsewhere,
    mask_of,
    noised,
    noised_under,
    plain,
)
from rewards.rules.facts import Facts, Finding

seeded = partial(seeds.seeded, "lesion_noise")
SIZE = (40, 30)
BOX = (5, 4, 20, 16)
FACTS = Facts(
    rule_set="chest_xray@1",
    findings={
        "nodule": Finding(polarity="present", side="left", boxes=(BOX,)),
        "effusion": Finding(polarity="present", side="left", boxes=((30, 20, 40, 30),)),
        "cardiomegaly": Finding(polarity="absent"),
    },
)


def grey(value=None, size=SIZE, seed=0):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (size[1], size[0])) if value is None else np.full((size[1], size[0]), value)
    return Image.fromarray(pixels.astype(np.uint8))


def box_heat(size=SIZE):
    return heat_of_boxes([BOX], size=size)


@pytest.mark.parametrize(
    ("step", "want"),
    [(0, .999978), (100, .996589), (250, .978386), (400, .892760), (500, .744799), (600, .539118), (750, .277739),
     (900, .133143), (999, .081249)],
)  # fmt: skip
def test_the_schedule_is_the_golden_one(step, want):
    assert alpha_bar()[step] == pytest.approx(want, abs=5e-7)


IMAGES = {
    "grey": grey,
    "grey with alpha": lambda: grey().convert("LA"),
    "colour": lambda: Image.merge("RGB", [grey(seed=k) for k in range(3)]),
    "colour with alpha": lambda: Image.merge("RGBA", [grey(seed=k) for k in range(4)]),
    "palette": lambda: grey().convert("P", palette=Image.Palette.ADAPTIVE),
    "16 bits": lambda: Image.fromarray(np.random.default_rng(0).integers(100, 4000, (30, 40)).astype(np.uint16)),
    "32 bits that need 16": lambda: Image.fromarray(
        np.random.default_rng(0).integers(0, 4000, (30, 40)).astype(np.int32)
    ),
    "black and white": lambda: grey().convert("1"),
    "ink": lambda: Image.merge("CMYK", [grey(seed=k) for k in range(4)]),
}


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("mode", ["diffusion", "replacement"])
def test_outside_the_mask_not_a_bit_changes_and_transparency_never(kind, mode):
    image = IMAGES[kind]()
    result = noised(image, box_heat(), NoiseSettings(mode=mode), seeded(1))
    before, after = np.asarray(plain(image)), np.asarray(result.image)
    assert before.dtype == after.dtype
    assert before.shape == after.shape
    inside = box_heat() > 0
    assert np.array_equal(before[~inside], after[~inside])
    assert not np.array_equal(before[inside], after[inside])
    if result.image.mode in ("LA", "RGBA"):
        assert np.array_equal(before[..., -1], after[..., -1])


def test_the_image_given_is_left_as_it_is():
    image = grey()
    noised(image, box_heat(), NoiseSettings(), seeded(1))
    assert image == grey()


def test_the_share_is_that_of_the_masked_pixels():
    result = noised(grey(), box_heat(), NoiseSettings(), seeded(1))
    assert result.share == pytest.approx(15 * 12 / (40 * 30))


def test_no_heat_is_no_lesion_and_makes_no_image():
    assert noised(grey(), np.zeros((30, 40), np.float32), NoiseSettings(), seeded(1)) is None


def test_full_heat_noises_every_pixel():
    result = noised(grey(128), np.ones((30, 40), np.float32), NoiseSettings(step=999), seeded(1))
    assert result.share == 1.0


@pytest.mark.parametrize("step", [100, 250, 500])
def test_the_blend_has_the_mean_and_the_spread_of_the_formula(step):
    size = (400, 400)
    heat = np.ones((400, 400), np.float32)
    after = np.asarray(noised(grey(128, size), heat, NoiseSettings(step=step), seeded(1)).image).astype(float)
    sigma = np.sqrt(1 - alpha_bar()[step]) * 127.5
    mean = np.sqrt(alpha_bar()[step]) * 0.5 + 127.5
    unclipped = 3 * sigma < 127
    assert after.mean() == pytest.approx(mean, abs=0.5)
    if unclipped:
        assert after.std() == pytest.approx(sigma, rel=0.01)


def test_a_soft_map_fades_the_noise_with_the_heat():
    heat = np.zeros((30, 40), np.float32)
    heat[:15], heat[15:] = 1.0, 0.25
    sharp, soft = (
        np.asarray(noised(grey(128), heat, NoiseSettings(step=300, soft=soft), seeded(1)).image).astype(float)
        for soft in (False, True)
    )
    assert np.array_equal(sharp[:15], soft[:15])
    assert soft[15:].std() == pytest.approx(0.25 * sharp[15:].std(), rel=0.1)


def test_the_released_replacement_is_dark_noise_that_forgets_the_pixel():
    settings_ = NoiseSettings(mode="replacement")
    heat = np.ones((200, 200), np.float32)
    one, two = (np.asarray(noised(grey(v, (200, 200)), heat, settings_, seeded(1)).image) for v in (10, 240))
    assert np.array_equal(one, two)
    assert one.max() < 60
    assert 0.4 < (one == 0).mean() < 0.6


def test_the_wrapped_replacement_is_salt_and_pepper_as_measured_upstream():
    heat = np.ones((300, 300), np.float32)
    after = np.asarray(
        noised(grey(128, (300, 300)), heat, NoiseSettings(mode="replacement", wrap=True), seeded(1)).image
    )
    assert (after <= 40).mean() == pytest.approx(0.54, abs=0.03)
    assert (after >= 216).mean() == pytest.approx(0.46, abs=0.03)


def test_the_released_mask_noises_at_least_half_whatever_the_map():
    rng = np.random.default_rng(0)
    for _ in range(5):
        heat = rng.exponential(size=(14, 14)).astype(np.float32)
        assert mask_of(heat, NoiseSettings(mask="mean_std", level=-1.0)).mean() >= 0.5


def test_the_same_seed_gives_the_same_noise_and_another_seed_another():
    one, two, three = (noised(grey(), box_heat(), NoiseSettings(), seeded("x", k)).image for k in (1, 1, 2))
    assert one == two
    assert one != three


def ramp():
    return np.arange(1, 101, dtype=np.float32).reshape(10, 10)


def test_mass_takes_the_fewest_pixels_that_hold_the_share():
    mask = mask_of(ramp(), NoiseSettings(mask="mass", level=0.5))
    assert ramp()[mask].sum() >= 0.5 * ramp().sum()
    assert ramp()[mask].sum() - ramp()[mask].min() < 0.5 * ramp().sum()
    assert ramp()[mask].min() > ramp()[~mask].max()


def test_quantile_takes_the_hottest_share():
    mask = mask_of(ramp(), NoiseSettings(mask="quantile", level=0.9))
    assert ramp()[mask].min() == 90
    assert mask.sum() == 11


def test_mean_and_standard_deviations_are_those_of_the_map():
    mask = mask_of(ramp(), NoiseSettings(mask="mean_std", level=1.0))
    assert np.array_equal(mask, ramp() > ramp().mean() + ramp().std())


def test_box_is_the_bounding_box_of_the_hot_pixels():
    heat = np.zeros((10, 10), np.float32)
    heat[2, 3], heat[6, 5], heat[9, 9] = 1.0, 0.8, 0.2
    mask = mask_of(heat, NoiseSettings(mask="box", level=0.5))
    assert mask.sum() == 5 * 3
    assert mask[2:7, 3:6].all()


@pytest.mark.parametrize("mask", ["quantile", "mean_std", "box"])
def test_a_flat_map_points_nowhere(mask):
    level = 0.5
    assert not mask_of(np.ones((8, 8), np.float32), NoiseSettings(mask=mask, level=level)).any()


@pytest.mark.parametrize("mask", ["mass", "quantile", "mean_std", "box"])
def test_given_boxes_come_back_from_every_policy(mask):
    level = {"mass": 1.0, "quantile": 0.9, "mean_std": 0.0, "box": 0.5}[mask]
    assert np.array_equal(mask_of(box_heat(), NoiseSettings(mask=mask, level=level)), box_heat() > 0)


@settings(max_examples=50)
@given(st.lists(st.floats(0, 100, width=32), min_size=4, max_size=60), st.floats(0.05, 0.95))
def test_a_larger_mass_never_takes_fewer_pixels(values, level):
    heat = np.array([values], np.float32)
    small, large = (mask_of(heat, NoiseSettings(mask="mass", level=p)) for p in (level, 1.0))
    assert not (small & ~large).any()
    assert heat[small].sum() >= level * heat.sum() * (1 - 1e-5)


@pytest.mark.parametrize(
    ("heat", "says"),
    [
        (np.ones((40, 30), np.float32), "its heat map is 30 x 40, but the image is 40 x 30 pixels"),
        (np.full((30, 40), np.nan, np.float32), "not numbers"),
        (np.full((30, 40), np.inf, np.float32), "not numbers"),
        (np.full((30, 40), -1, np.float32), "negative"),
    ],
)
def test_a_heat_map_that_cannot_be_is_refused(heat, says):
    with pytest.raises(ImageError, match=says):
        noised(grey(), heat, NoiseSettings(), seeded(1))


def test_floating_point_pixels_and_pixels_beyond_16_bits_are_refused():
    with pytest.raises(ImageError, match="floating-point"):
        plain(Image.fromarray(np.zeros((4, 4), np.float32)))
    with pytest.raises(ImageError, match="beyond 16 bits"):
        plain(Image.fromarray(np.full((4, 4), 70000, np.int32)))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"mask": "mass", "level": 1.5}, "share above 0"),
        ({"mask": "quantile", "level": 0.0}, "share above 0"),
        ({"wrap": True}, "mode 'replacement'"),
        ({"mode": "replacement", "soft": True}, "mode 'diffusion'"),
        ({"step": 1000}, "less than or equal to 999"),
        ({"mask": "otsu"}, "mask"),
    ],
)
def test_settings_that_have_no_meaning_are_refused(wrong, says):
    with pytest.raises(ValidationError, match=says):
        NoiseSettings(**wrong)


def test_given_boxes_are_hot_for_their_own_finding_only():
    heat, score = GivenBoxes(FACTS)(grey(), "nodule")
    assert np.array_equal(heat, box_heat())
    assert score == 1.0
    both, _ = GivenBoxes(FACTS)(grey())
    assert both.sum() == 15 * 12 + 10 * 10


@pytest.mark.parametrize("finding", ["cardiomegaly", "pneumothorax"])
def test_a_finding_that_is_not_there_has_no_heat_and_no_score(finding):
    heat, score = GivenBoxes(FACTS)(grey(), finding)
    assert not heat.any()
    assert score == 0.0


def test_findings_that_are_not_named_are_not_noised():
    heat, _ = GivenBoxes(FACTS, findings=("nodule",))(grey())
    assert np.array_equal(heat, box_heat())


def test_boxes_on_a_grid_are_scaled_to_the_image():
    on_grid = Facts(rule_set="x@1", findings={"a": Finding(polarity="present", boxes=((50, 0, 100, 50),))})
    heat, _ = GivenBoxes(on_grid, grid=100)(grey())
    assert heat[:15, 20:].all()
    assert heat.sum() == 15 * 20


def test_a_contour_is_noised_and_not_its_box():
    contour = np.zeros((30, 40), bool)
    contour[np.tril_indices(20)] = True
    heat, score = GivenMasks({"mass": contour})(grey(), "mass")
    assert np.array_equal(mask_of(heat, NoiseSettings()), contour)
    assert score == 1.0
    assert GivenMasks({"mass": contour})(grey(), "nodule")[1] == 0.0


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(ImageError, match="but the image is 40 x 30"):
        GivenMasks({"mass": np.ones((10, 10))})(grey())


def test_the_control_noises_as_many_pixels_elsewhere():
    mask = box_heat() > 0
    other = elsewhere(mask, seeded(3))
    assert other.sum() == mask.sum()
    assert not (other & mask).any()
    after = noised_under(grey(), other, NoiseSettings(), seeded(4))
    assert np.array_equal(np.asarray(after.image)[mask], np.asarray(grey())[mask])


def test_more_than_half_noised_is_warned_of_and_what_was_skipped_is_counted(caplog):
    tally = NoiseTally(shares=[0.1, 0.6, 0.7])
    tally.skipped["no lesion"] += 4
    with caplog.at_level(logging.WARNING):
        report = tally.report()
    assert report["above_half"] == 2
    assert report["noised_share"]["max"] == 0.7
    assert report["skipped"] == {"no lesion": 4}
    assert "more than half of 2 of 3 images" in caplog.text


def test_local_noise_warns_of_nothing(caplog):
    assert NoiseTally(shares=[0.1]).report()["above_half"] == 0
    assert NoiseTally().report()["images"] == 0
    assert not caplog.records
