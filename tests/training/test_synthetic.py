"""Synthetic scenes: the same from a seed, masks that are what is seen, and objects that come and go."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.training.synthetic import Scene, SceneOptions, make_scene
from sam2_pipeline.training.synthetic.drawing import _islands, _overlap, _scaled
from sam2_pipeline.training.synthetic.shapes import RADIUS, SHAPES, draw_shape
from sam2_pipeline.training.synthetic.sprites import _mean
from sam2_pipeline.training.synthetic.textures import PATTERNS, palette, pattern_texture

SMALL = SceneOptions(size=(96, 128), frames=12)
# Nothing but opaque objects over a background.
CLEAR = replace(SMALL, noise=0, lighting=0, compression=0, shadows=0, motion_blur=0, objects=(4, 6), diameter=(0.25, 0.7))


def without(scene: Scene, label: int) -> Scene:
    """The same scene less one whole object."""
    objects = tuple(one for one in scene.objects if one.label != label)
    return Scene(scene.seed, scene.options, objects, scene.backdrop, scene.camera, scene.light, scene.sensor, scene.shadow)


def test_frames_and_masks_follow_from_the_seed_in_any_order():
    first, second, other = make_scene(5, SMALL), make_scene(5, SMALL), make_scene(6, SMALL)
    backward = {t: (second.masks(t), second.frame(t)) for t in reversed(range(12))}
    for t in range(12):
        np.testing.assert_array_equal(first.frame(t), backward[t][1])
        np.testing.assert_array_equal(first.masks(t), backward[t][0])
    assert (first.frame(0) != other.frame(0)).mean() > 0.5
    assert (first.frame(0) != first.frame(11)).mean() > 0.1


def test_shapes_and_types():
    scene = make_scene(0, replace(SMALL, objects=(3, 3), parts=1))
    frame, masks = scene.frame(2), scene.masks(2)
    assert frame.shape == (96, 128, 3) and frame.dtype == np.uint8
    assert masks.shape == (scene.num_objects, 96, 128) and masks.dtype == np.bool_
    assert len(scene.parents) == len(scene.courses) == scene.num_objects > 3
    assert (scene.height, scene.width, scene.num_frames) == (96, 128, 12)


def test_results_belong_to_the_caller():
    scene = make_scene(1, CLEAR)
    for give in (scene.frame, scene.masks, scene.labels):
        before = give(3).copy()
        give(3)[:] = 0
        np.testing.assert_array_equal(give(3), before)


def test_scenery_is_all_that_no_object_hides_region_by_region():
    regions = 0
    for seed in range(8):
        scene = make_scene(seed, CLEAR)
        regions += scene.num_scenery
        for t in (0, 7):
            shown, free = scene.scenery(t), scene.labels(t) == 0
            assert shown.shape == (scene.num_scenery, 96, 128) and shown.dtype == np.bool_
            if scene.num_scenery:
                np.testing.assert_array_equal(shown.sum(0), free)  # each pixel is of one region
    assert regions > 8
    assert any(make_scene(seed, CLEAR).num_scenery == 0 for seed in range(20))  # a backdrop of one surface


def test_regions_of_a_backdrop_that_repeats_go_on_across_its_edges():
    surfaces = np.zeros((8, 8), np.uint8)
    surfaces[:, 6:] = surfaces[:, :1] = 1  # one strip, over the edge
    surfaces[3:5, 3] = 1
    islands = _islands(surfaces)
    assert len(np.unique(islands)) == 3
    assert len(np.unique(islands[:, [6, 7, 0]])) == len(np.unique(islands[3:5, 3])) == len(np.unique(islands[surfaces == 0])) == 1


def test_wholes_are_disjoint_and_parts_within_them():
    parts_seen = 0
    for seed in range(12):
        scene = make_scene(seed, replace(CLEAR, parts=0.7))
        masks, wholes = scene.masks(6), scene.parents < 0
        assert masks[wholes].sum(0).max() <= 1
        assert masks[~wholes].sum(0).max(initial=0) <= 1
        for part, whole in enumerate(scene.parents):
            if whole >= 0:
                assert not (masks[part] & ~masks[whole]).any()
                parts_seen += masks[part].any()
    assert parts_seen > 10


def test_labels_name_the_topmost_mask():
    scene = make_scene(3, replace(CLEAR, parts=0.7))
    labels, masks = scene.labels(4), scene.masks(4)
    np.testing.assert_array_equal(labels > 0, masks.any(0))
    y, x = np.nonzero(labels)
    assert masks[labels[y, x] - 1, y, x].all()


@pytest.mark.parametrize("seed", range(6))
def test_a_mask_is_where_the_object_is_seen(seed):
    """Without the object the picture differs within its mask and nowhere else, but for soft edges and hair-thin ends."""
    scene = make_scene(seed, replace(CLEAR, twins=0, camouflage=0))
    full, masks = scene.frame(5).astype(int), scene.masks(5)
    for one in scene.objects:
        mask = masks[one.label]
        change = np.abs(full - without(scene, one.label).frame(5)).max(-1)
        outside = change[~ndimage.binary_dilation(mask, iterations=2)]
        assert outside.max() < 64 and (outside > 0).sum() <= 3 + 0.05 * mask.sum()
        core = ndimage.binary_erosion(mask, border_value=1)
        assert not core.any() or (change[core] > 0).mean() > 0.95  # some pixels have the colour of what is behind


def test_effects_change_pictures_and_not_masks():
    plain = make_scene(2, CLEAR)
    for change in ({"noise": 4}, {"lighting": 2}, {"compression": 1}, {"motion_blur": 1, "speed": 1}, {"shadows": 1}):
        changed = make_scene(2, replace(CLEAR, **change))
        frames = [(plain.frame(t).astype(int), changed.frame(t)) for t in range(12)]
        assert max(np.abs(a - b).mean() for a, b in frames) > 0.1, change
        for t in (0, 11):
            np.testing.assert_array_equal(plain.masks(t), changed.masks(t))


def test_nothing_moves_without_the_strengths():
    still = make_scene(4, replace(CLEAR, speed=0, camera=0, deformation=0, late=0, leave=0, vanish=0, moving_background=0))
    np.testing.assert_array_equal(still.frame(0), still.frame(11))


@pytest.mark.parametrize("option", ["speed", "camera", "deformation", "moving_background"])
def test_each_strength_moves_something(option):
    rest = {"speed": 0, "camera": 0, "deformation": 0, "late": 0, "leave": 0, "vanish": 0, "moving_background": 0}
    moving = [make_scene(seed, replace(CLEAR, **{**rest, option: 1})) for seed in range(3)]
    assert any((scene.frame(0) != scene.frame(11)).mean() > 0.01 for scene in moving)


def test_objects_come_and_go_as_often_as_asked():
    """Courses have the stated frequencies, and are what their names say in the masks."""
    options = replace(SMALL, size=(48, 64), frames=16, late=0.3, leave=0.3, vanish=0.2, parts=0, camera=0, objects=(4, 4))
    courses, returned, entered = [], 0, 0
    for seed in range(40):
        scene = make_scene(seed, options)
        visible_TN = np.stack([scene.masks(t).any((1, 2)) for t in range(16)])
        courses += scene.courses
        for course, visible in zip(scene.courses, visible_TN.T):
            if course == "late":
                assert not visible[0]
                entered += visible.any()
            if course == "leaves":
                assert not visible.all()
                gone = np.flatnonzero(~visible)
                returned += (visible[: gone[0]].any() and visible[gone[-1] :].any()) or visible[gone[0] :].any()
            if course == "vanishes":
                assert not visible[-1]
    for course, share in {"late": 0.3, "leaves": 0.3, "vanishes": 0.2, "stays": 0.2}.items():
        assert abs(courses.count(course) / 160 - share) < 0.11, course  # three standard deviations
    assert entered > 0.8 * courses.count("late") and returned > 0.8 * courses.count("leaves")


def test_depth_changes_and_objects_hide_each_other():
    scenes = [make_scene(seed, replace(CLEAR, frames=40, objects=(5, 5), parts=0)) for seed in range(4)]
    orders = [{tuple(np.argsort([one.motion.depth_T[t] for one in scene.objects])) for t in range(40)} for scene in scenes]
    assert any(len(order) > 1 for order in orders)
    hidden = 0
    for scene in scenes:
        for one in scene.objects:
            alone = Scene(
                scene.seed, scene.options, (replace(one, label=0),), scene.backdrop, scene.camera, None, scene.sensor, None
            )
            hidden += alone.masks(20)[0].sum() > scene.masks(20)[one.label].sum()
    assert hidden >= 3


def test_number_and_size_of_objects():
    for seed in range(5):
        scene = make_scene(seed, replace(CLEAR, objects=(2, 3), parts=0, speed=0, diameter=(0.3, 0.3), late=0, leave=0, vanish=0))
        assert 2 <= scene.num_objects <= 3
        for mask in scene.masks(0):
            if mask.any():
                y, x = np.nonzero(mask)
                assert max(np.ptp(y), np.ptp(x)) < 0.3 * 96 * 1.6  # zoom and bending included


def test_twins_look_alike_and_camouflage_shares_colours():
    twins = make_scene(0, replace(SMALL, twins=1, objects=(4, 4)))
    assert len({id(one.sprite) for one in twins.objects}) == 1
    usual, hiding = (make_scene(1, replace(CLEAR, camouflage=share, objects=(4, 4), defocus=0)) for share in (0, 1))
    assert (usual.frame(0) != hiding.frame(0)).any()
    np.testing.assert_array_equal(usual.backdrop.pixels, hiding.backdrop.pixels)


def test_pictures_as_textures(tmp_path: Path):
    green = np.zeros((40, 50, 3), np.uint8) + np.array([10, 240, 30], np.uint8)
    for name in ("a.png", "b.jpg"):
        Image.fromarray(green).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not a picture")
    options = replace(CLEAR, pictures=str(tmp_path), picture_share=1)
    scene = make_scene(0, options)
    outside = scene.frame(3)[~ndimage.binary_dilation(scene.masks(3).any(0), iterations=2)]
    assert np.abs(outside.astype(int) - [10, 240, 30]).max() < 12
    np.testing.assert_array_equal(scene.frame(3), make_scene(0, options).frame(3))


def test_pictures_that_are_not_there(tmp_path: Path):
    with pytest.raises(ConfigError, match="not a folder"):
        make_scene(0, replace(SMALL, pictures=str(tmp_path / "absent"), picture_share=1))
    with pytest.raises(ConfigError, match="without pictures"):
        make_scene(0, replace(SMALL, pictures=str(tmp_path), picture_share=1))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ConfigError, match=r"broken\.png"):
        make_scene(0, replace(SMALL, pictures=str(tmp_path), picture_share=1))


@pytest.mark.parametrize(
    "wrong",
    [{"size": (8, 64)}, {"frames": 0}, {"fps": 0.0}, {"objects": (3, 2)}, {"objects": (0, 2)}, {"diameter": (0.5, 0.2)},
     {"noise": -1.0}, {"parts": 1.5}, {"late": 0.6, "leave": 0.6}],
)  # fmt: skip
def test_options_out_of_range(wrong):
    with pytest.raises(ConfigError, match="expected"):
        SceneOptions(**wrong)


def test_frames_and_seeds_out_of_range():
    with pytest.raises(ConfigError, match="expected 0 to 11"):
        make_scene(0, SMALL).masks(12)
    with pytest.raises(ConfigError, match="expected 0 to 11"):
        make_scene(0, SMALL).frame(-1)
    with pytest.raises(ConfigError, match="seed is -1"):
        make_scene(-1, SMALL)


def test_one_frame_is_a_scene():
    assert make_scene(0, replace(SMALL, frames=1, motion_blur=1)).frame(0).shape == (96, 128, 3)


@pytest.mark.parametrize("kind", SHAPES)
def test_every_shape_is_there_and_in_its_circle(kind):
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64] / 31.5 - 1
    for _ in range(8):
        shape = draw_shape(rng, 64, (kind,))
        assert 60 < (shape >= 128).sum() < 2600
        assert np.hypot(x, y)[shape > 0].max() < RADIUS + 0.2
    holes = ndimage.label(shape < 128)[1] - 1
    assert kind not in ("ring", "gear", "sieve") or holes >= 1


@pytest.mark.parametrize("kind", PATTERNS)
def test_every_pattern_repeats_without_a_seam(kind):
    for seed in range(4):
        rng = np.random.default_rng(seed)
        pixels = pattern_texture(rng, 64, palette(rng), (kind,)).view(np.uint8).reshape(64, 64, 4).astype(int)
        for axis in (0, 1):
            steps = np.abs(np.diff(np.concatenate([pixels, pixels.take([0], axis)], axis), axis=axis)).mean((1 - axis, 2))
            assert steps[-1] <= 1.5 * steps.max(initial=0, where=np.arange(64) < 63) + 1


def test_arithmetic_on_packed_pixels():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (2, 50, 4), np.uint8)
    share = rng.integers(0, 256, 50).astype(np.uint32)
    share[:2] = 0, 255
    scaled = _scaled(a.view("<u4")[:, 0], share).view(np.uint8).reshape(50, 4)
    assert np.abs(scaled - a * (share[:, None] / 255)).max() <= 1
    np.testing.assert_array_equal(scaled[:2], a[:2] * np.array([[0], [1]], np.uint8))
    both = np.stack([a.view("<u4")[:, 0], b.view("<u4")[:, 0]])
    mean = _mean(both, 0)[0].view(np.uint8).reshape(50, 4)
    assert np.abs(mean - (a / 2 + b / 2)).max() <= 1


def test_overlap_of_a_patch_and_the_canvas():
    canvas, patch = np.zeros((5, 7), int), np.arange(1, 13).reshape(3, 4)
    for x in range(-6, 9):
        for y in range(-5, 7):
            target, source = _overlap(canvas.shape, patch.shape, x, y)
            drawn = canvas.copy()
            drawn[target] = patch[source]
            wide = np.zeros((25, 27), int)
            wide[10 + y : 13 + y, 10 + x : 14 + x] = patch
            np.testing.assert_array_equal(drawn, wide[10:15, 10:17])


def test_speed_is_printed(capsys):
    options = SceneOptions(objects=(6, 6))
    make_scene(0, options).frame(0)
    start = time.process_time()
    for seed in range(2):
        scene = make_scene(seed, options)
        for t in range(scene.num_frames):
            scene.frame(t)
            scene.masks(t)
    rate = 2 * scene.num_frames / (time.process_time() - start)
    with capsys.disabled():
        print(f"\nsynthetic scenes: {rate:.0f} frames/s of 256x256 with six objects and their masks, on one core")
