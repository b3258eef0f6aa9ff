"""Shot changes: found where two scenes are joined, and not where there is light, speed, noise or a flash."""

import numpy as np
import pytest

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.masklets.frames import Frame
from sam2_pipeline.segment.cuts import CutOptions, mark_cuts
from sam2_pipeline.training.synthetic import SceneOptions, make_scene

PLAIN = SceneOptions(size=(64, 96), frames=10, objects=(2, 4))


def scene(seed: int, count: int = 10, options: SceneOptions = PLAIN) -> list[np.ndarray]:
    made = make_scene(seed, options)
    return [made.frame(t) for t in range(count)]


def cuts(images: list[np.ndarray], **options) -> list[int]:
    frames = [Frame(number, number / 24, image) for number, image in enumerate(images)]
    marked = list(mark_cuts(iter(frames), CutOptions(**options)))
    assert [frame.index for frame, _ in marked] == list(range(len(images)))  # all of them, in order
    return [frame.index for frame, cut in marked if cut]


@pytest.fixture(scope="module")
def scenes() -> list[list[np.ndarray]]:
    return [scene(seed) for seed in range(12)]


def test_joined_scenes_are_cut_where_they_are_joined(scenes):
    images = [image for one in scenes for image in one]
    assert cuts(images) == list(range(10, 120, 10))
    assert cuts(images, threshold=1.0) == []


def test_one_scene_has_no_cut(scenes):
    assert [cuts(one) for one in scenes] == [[]] * len(scenes)


def test_fast_scenes_have_none():
    wild = SceneOptions(size=(64, 96), frames=10, objects=(2, 4), camera=3, speed=2, lighting=3)
    assert [cuts(scene(seed, options=wild)) for seed in range(4)] == [[]] * 4


def test_flashes_and_short_disturbances_are_no_cuts(scenes):
    first, second = scenes[:2]
    flash = [np.clip(image.astype(int) + 150, 0, 255).astype(np.uint8) for image in first[5:7]]
    assert cuts(first[:5] + flash + first[7:]) == []
    assert cuts(first[:5] + second[5:7] + first[7:]) == []  # two frames of something else


def test_light_that_is_switched_off_is_no_cut(scenes):
    assert cuts(scenes[0][:5] + [image // 3 for image in scenes[0][5:]]) == []


def mixed(first, second, frames):
    """The last ``frames`` pictures of one shot dissolved into the first of the next."""
    shares = [(n + 1) / (frames + 1) for n in range(frames)]
    blend = [(1 - s) * a + s * b for s, a, b in zip(shares, first[-frames:], second)]
    return first[:-frames] + [picture.astype(np.uint8) for picture in blend] + second[frames:]


CALM = SceneOptions(size=(64, 96), frames=30, objects=(2, 4), camera=0.1, speed=0.1, deformation=0.1, lighting=0.1, noise=0.5,
                    moving_background=0, leave=0, vanish=0, late=0)  # fmt: skip


@pytest.fixture(scope="module")
def calm() -> list[list[np.ndarray]]:
    return [scene(seed, 30, CALM) for seed in range(6)]


@pytest.mark.parametrize("frames", [5, 10, 15])
def test_a_shot_that_is_dissolved_ends_where_nothing_is_left_of_it(calm, frames):
    for first, second in zip(calm[::2], calm[1::2]):
        both = mixed(first, second, frames)
        [found] = cuts(both)
        assert abs(found - 30) <= 1
        assert cuts(both, longest_fade=0) == cuts(both, longest_fade=frames - 1) == []


@pytest.mark.parametrize("colour", [0, 255])
def test_shots_that_fade_out_and_in(calm, colour):
    ground = [np.full_like(calm[0][0], colour)] * 14
    images = mixed(mixed(calm[0], ground, 6), calm[1], 6)
    assert cuts(images) == [30, 38]  # the first picture of the ground, and the first of the next shot


def test_what_is_no_dissolve(calm):
    picture = calm[0][0]
    assert [cuts(one) for one in calm] == [[]] * len(calm)
    dimmed = [(picture * share).astype(np.uint8) for share in np.linspace(1, 0.25, 12)]
    assert cuts([picture] * 10 + dimmed + [dimmed[-1]] * 10) == []
    wide = np.concatenate([calm[0][0], calm[1][0], calm[2][0]], axis=1)
    panned = [np.ascontiguousarray(wide[:, x : x + 96]) for x in range(0, 192, 8)]
    assert cuts([panned[0]] * 10 + panned + [panned[-1]] * 10) == []
    wiped = [np.concatenate([calm[1][0][:, :x], picture[:, x:]], axis=1) for x in range(0, 97, 8)]
    assert cuts([picture] * 10 + wiped + [wiped[-1]] * 10) == []


def test_black_and_back(scenes):
    black = [np.zeros_like(scenes[0][0])] * 6
    assert cuts(scenes[0] + black + scenes[1]) == [10, 16]
    assert cuts(black * 2) == []


def test_short_videos():
    assert cuts([]) == []
    assert cuts(scene(1, 1)) == []
    assert cuts(scene(1, 1) + scene(2, 1)) == []  # one frame is no shot
    assert cuts(scene(1, 2) + scene(2, 2)) == [2]


def test_pictures_are_looked_at_four_at_a_time(scenes):
    asked = []

    def frames():
        for number, image in enumerate(scenes[0]):
            asked.append(number)
            yield Frame(number, number / 24, image)

    marked = mark_cuts(frames(), CutOptions())
    for number in range(5):
        assert next(marked)[0].index == number and asked == list(range(number + 4))


@pytest.mark.parametrize("wrong", [0.0, 1.5, float("nan")])
def test_impossible_thresholds(wrong):
    with pytest.raises(ConfigError, match=r"cuts\.threshold"):
        CutOptions(wrong)
