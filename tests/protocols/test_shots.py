"""Clips with shot changes, and what is said of them: changes found, masklets that cross one."""

import json

import numpy as np
import pytest
from oracle import square
from random_weights import save_random_weights

from sam2_pipeline import cli
from sam2_pipeline.errors import ConfigError
from sam2_pipeline.masklets.rle import Rle, decode
from sam2_pipeline.protocols.joined import JoinedClips
from sam2_pipeline.protocols.shots import ShotChange, ShotScore, score_shots, shot_figures
from sam2_pipeline.training.synthetic import SceneOptions, make_scene

SCENES = SceneOptions(size=(48, 64), frames=6, objects=(1, 2), parts=0)


def pictures(clips, video_id):
    with clips.open(video_id) as frames:
        return [frame.image for frame in frames.frames(0)]


def test_scenes_are_cut_to_each_other():
    clips = JoinedClips(2, SCENES, shots=3)
    assert clips.video_ids == ("joined_000000", "joined_000001")
    assert clips.changes("joined_000001") == (ShotChange(6, 6), ShotChange(12, 12))
    scenes = [make_scene(seed, SCENES) for seed in (3, 4, 5)]  # of the second clip
    shown = pictures(clips, "joined_000001")
    expected = [scene.frame(t) for scene in scenes for t in range(6)]
    assert all(np.array_equal(a, b) for a, b in zip(shown, expected, strict=True))
    masks, label = clips.read("joined_000001"), 0
    for shot, scene in enumerate(scenes):
        for number in range(scene.num_objects):
            found = [decode(masks[label][t]) for t in range(18)]
            own = range(6 * shot, 6 * shot + 6)
            assert all(np.array_equal(found[t], scene.masks(t - 6 * shot)[number]) for t in own)
            assert not any(found[t].any() for t in range(18) if t not in own)
            label += 1
    assert label == len(masks)


def test_the_scenery_of_scenes_that_are_cut_to_each_other():
    clips, scenes = JoinedClips(3, SCENES, shots=2), [make_scene(seed, SCENES) for seed in (4, 5)]
    regions = clips.scenery("joined_000002")
    assert len(regions) == sum(scene.num_scenery for scene in scenes) > 0
    for t in range(12):
        shown = np.stack([decode(masks[t]) for masks in regions.values()])
        first, second = (scene.scenery(t % 6) for scene in scenes)
        empty = [np.zeros_like(other) for other in (first, second)]
        assert np.array_equal(shown, np.concatenate((first, empty[1]) if t < 6 else (empty[0], second)))


def test_scenes_are_mixed_into_each_other():
    clips = JoinedClips(1, SCENES, shots=3, dissolve=2)
    assert clips.changes("joined_000000") == (ShotChange(4, 6), ShotChange(8, 10))
    first, second, third = (make_scene(seed, SCENES) for seed in range(3))
    shown = pictures(clips, "joined_000000")
    assert len(shown) == 14 and np.array_equal(shown[3], first.frame(3)) and np.array_equal(shown[6], second.frame(2))
    assert np.array_equal(shown[9], np.rint(second.frame(5) / 3 + third.frame(1) / 1.5).astype(np.uint8))
    masks = clips.read("joined_000000")
    of_second = range(first.num_objects, first.num_objects + second.num_objects)
    shows_second = [t for t in range(14) if any(masks[label][t].area for label in of_second)]
    assert shows_second and set(shows_second) <= set(range(5, 9))  # from where it is more than half of the picture


@pytest.mark.parametrize(("wrong", "message"), [({"shots": 1}, "1 shots are joined"), ({"dissolve": 3}, "dissolved over 3")])
def test_impossible_clips(wrong, message):
    with pytest.raises(ConfigError, match=message):
        JoinedClips(1, SCENES, **wrong)


def test_masklets_that_cross_a_change():
    def on(*frames):
        return {t: square(2, 2, 4 if t in frames else 0) for t in range(10)}

    changes = (ShotChange(4, 6), ShotChange(8, 8))
    masklets = {0: on(0, 3), 1: on(3, 5), 2: on(3, 6), 3: on(5, 7), 4: on(7, 8), 5: on()}
    found = score_shots(masklets, changes, [6, 7])
    assert found == ShotScore(changes=2, found=1, claimed=2, masklets=5, crossing=2)  # 2 and 4
    none = score_shots({}, (), [])
    assert shot_figures([found, none]) == {
        "shot_changes": 2,
        "shot_changes_claimed": 2,
        "shot_change_recall": 0.5,
        "shot_change_precision": 0.5,
        "masklets_across_shots": 2,
        "masklets_across_shots_share": 0.4,
    }
    ignored = shot_figures([score_shots({0: dict.fromkeys(range(3), Rle.empty(4, 4))}, changes, None)])
    assert ignored["shot_changes_claimed"] is ignored["shot_change_recall"] is ignored["shot_change_precision"] is None
    assert ignored["masklets_across_shots_share"] is None


def test_the_verb_joins_scenes(tmp_path, capsys):
    weights = save_random_weights(tmp_path / "weights.safetensors")
    model = f"--model sam2_pipeline_small --image-size 128 --device cpu --checkpoint {weights} --workers 1"
    scene = "--clips 1 --scene size=[96,128] --scene frames=6 --shots 2 --json"
    settings = "--set generate.points_per_side=2 --set generate.crop_grids=[] --set cuts.mode=split"
    words = f"evaluate synthetic --protocol automatic {model} {scene} {tmp_path / 'found.json'} {settings}".split()
    assert cli.main(words) == 0
    assert "shot changes" in capsys.readouterr().out
    [found] = json.loads((tmp_path / "found.json").read_text())["protocols"]
    assert found["shot_changes"] == found["shot_changes_claimed"] == 1
    assert found["shot_change_recall"] == found["shot_change_precision"] == 1 and found["masklets_across_shots"] == 0
    assert cli.main([*words, "--dissolve", "3"]) == 2
    assert "scenes of 6 frames are dissolved over 3" in capsys.readouterr().err
    assert cli.main(["evaluate", str(tmp_path), "--protocol", "mask", "--shots", "2"]) == 2
    assert "--shots" in capsys.readouterr().err
