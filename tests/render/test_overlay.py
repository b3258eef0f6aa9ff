"""Pictures of masklets, looked at by numbers: what is coloured, what is left alone, what a video player reads back."""

import av
import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.masklets.centre import centre
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.rle import encode
from sam2_pipeline.render.compare import draw_both
from sam2_pipeline.render.layout import beside, fit, sheet
from sam2_pipeline.render.overlay import colour, draw_outlines, draw_prompt, outline, overlay, write
from sam2_pipeline.render.video import write_video

FRAME = np.full((60, 80, 3), 100, np.uint8)


def square(top: int, left: int, side: int, shape: tuple[int, int] = (60, 80)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_colours_are_the_same_for_a_number_and_well_apart() -> None:
    colours = np.array([colour(n) for n in range(24)], int)
    assert colour(7) == colour(7)
    apart = np.abs(colours[:, None] - colours[None]).sum(axis=-1) + 1000 * np.eye(24, dtype=int)
    assert apart.min() >= 30
    assert np.abs(np.diff(colours, axis=0)).sum(axis=1).min() > 150  # numbers beside each other


def test_only_masks_are_tinted_and_the_frame_is_not_touched() -> None:
    masks = np.stack([square(10, 10, 20), square(0, 50, 5), np.zeros((60, 80), bool)])
    before = FRAME.copy()
    picture = overlay(FRAME, masks, [4, 9, 2], numbers=False)
    assert (before == FRAME).all()
    assert (picture[~masks.any(axis=0)] == 100).all()
    assert tuple(picture[20, 20]) == tuple((np.full(3, 100) * 0.55 + np.array(colour(4)) * 0.45).astype(np.uint8))
    assert tuple(picture[10, 10]) == colour(4)


def test_a_part_lies_on_its_whole_whatever_the_order() -> None:
    whole, part = square(5, 5, 40), square(15, 15, 10)
    pictures = [
        overlay(FRAME, np.stack(masks), ids, numbers=False) for masks, ids in [((whole, part), [1, 2]), ((part, whole), [2, 1])]
    ]
    assert (pictures[0] == pictures[1]).all()
    assert tuple(pictures[0][15, 15]) == colour(2)


def test_numbers_stand_at_the_centre() -> None:
    with_numbers, without = (overlay(FRAME, square(10, 10, 40)[None], [8], numbers=on) for on in (True, False))
    y, x = np.nonzero((with_numbers != without).any(axis=-1))
    assert abs(y.mean() - 29.5) < 3 and abs(x.mean() - 29.5) < 3


def test_outline_is_the_rim_but_not_along_the_pictures_edge() -> None:
    rim = outline(square(0, 10, 10))
    assert rim.sum() == 10 + 2 * 9  # below, left and right; open above
    assert not outline(np.zeros((4, 4), bool)).any() and not outline(np.ones((4, 4), bool)).any()
    assert outline(square(20, 20, 10), 2).sum() == 100 - 36


def test_outlines_leave_the_inside_alone() -> None:
    picture = draw_outlines(FRAME, square(20, 20, 20)[None], [(255, 255, 255)])
    assert (picture[22:38, 22:38] == 100).all() and (picture[20, 20:40] == 255).all() and (picture[19, 20:40] == 50).all()


def test_prompt_marks() -> None:
    prompt = Prompt(1, 0, np.array([[20, 30], [60, 30]]), np.array([1, 0]), np.array([5, 5, 75, 55]))
    picture = draw_prompt(FRAME, prompt).astype(int)
    assert picture[27:34, 17:24, 1].max() > 200 > picture[27:34, 57:64].min() + 100
    assert tuple(picture[5, 40]) == (255, 220, 0)


def test_frames_and_masks_must_fit() -> None:
    with pytest.raises(ConfigError, match=r"frame is \(60, 80, 3\), masks \(1, 10, 10\), 1 ids"):
        overlay(FRAME, np.ones((1, 10, 10), bool), [0])
    with pytest.raises(ConfigError, match="of one height"):
        beside([FRAME, FRAME[:10]])
    with pytest.raises(ConfigError, match="0 rows"):
        sheet([])


def test_sheets_and_rows() -> None:
    assert beside([FRAME, FRAME], ["left", "right"]).shape == (60, 164, 3)
    page = sheet([[FRAME, FRAME], [FRAME]])
    assert page.shape == (124, 164, 3) and (page[64:, 84:] == 24).all()
    assert fit(FRAME, 40).shape == (30, 40, 3)
    assert (write(FRAME, "text", (0, 0)) != FRAME).any()


def test_matches_have_one_colour_and_what_was_missed_is_white() -> None:
    found, true = {6: encode(square(10, 10, 20))}, {1: encode(square(12, 10, 20)), 2: encode(square(40, 60, 12))}
    left, right = draw_both(FRAME, found, true, {1: 6})
    assert tuple(left[10, 10]) == tuple(right[12, 10]) == colour(6)
    assert tuple(right[40, 60]) == (255, 255, 255) and tuple(right[45, 65]) == (100, 100, 100)
    assert (left[40:, 50:] == 100).all()
    assert all((side == FRAME).all() for side in draw_both(FRAME, {}, {}, {}))


def test_centre_of_a_ring_is_on_the_ring_and_is_the_deepest_pixel() -> None:
    y, x = np.mgrid[:60, :80]
    ring = (np.hypot(y - 30, x - 40) < 25) & (np.hypot(y - 33, x - 40) > 12)
    found = centre(ring)
    assert found is not None
    assert ring[found[1], found[0]]
    assert found[2] == distance_transform_edt(np.pad(ring, 1)).max()
    assert centre(square(0, 0, 5)) == (2, 2, 3.0)  # the picture's edge is a border, too
    assert centre(np.zeros((3, 3), bool)) is None


@pytest.mark.parametrize("shape", [(48, 64), (49, 63)])
def test_videos_are_read_back(tmp_path, shape) -> None:
    frames = [np.full((*shape, 3), 20 * t, np.uint8) for t in range(8)]
    assert write_video(tmp_path / "v.mp4", iter(frames), 12) == 8
    with av.open(str(tmp_path / "v.mp4")) as container:
        assert container.streams.video[0].average_rate == 12
        read = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(read) == 8 and read[0].shape == (48 + 2 * (shape[0] % 2), 64, 3)
    assert all(abs(int(picture.mean()) - 20 * t) <= 3 for t, picture in enumerate(read))


def test_videos_of_nothing_or_of_several_sizes_are_refused(tmp_path) -> None:
    with pytest.raises(ConfigError, match="no frame"):
        write_video(tmp_path / "v.mp4", [], 12)
    with pytest.raises(ConfigError, match="frame 1 is"):
        write_video(tmp_path / "v.mp4", [FRAME, FRAME[:10]], 12)
