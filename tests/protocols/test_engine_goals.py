"""What the data engine has to reach, with a model that sees the truth: what is lost here, the machinery has lost."""

from collections.abc import Iterator
from dataclasses import replace

from true_tracker import TrueTracker

from sam2_pipeline.masklets.identity import IdentityOptions
from sam2_pipeline.masklets.verdict import LESS_IS_BETTER, VerdictRules
from sam2_pipeline.protocols import late, shots
from sam2_pipeline.protocols.clips import SyntheticClips, TrueClips
from sam2_pipeline.protocols.interactive import Effort
from sam2_pipeline.protocols.joined import JoinedClips
from sam2_pipeline.protocols.trial import Round, Trial
from sam2_pipeline.protocols.verdicts import GOOD, PRECISION, VerdictFigures
from sam2_pipeline.segment.cuts import CutOptions
from sam2_pipeline.segment.discover import DiscoverOptions
from sam2_pipeline.segment.judge import JudgeOptions
from sam2_pipeline.training.synthetic import SceneOptions

MIN_AREA = 0.001  # as `evaluate synthetic`
LATE = SceneOptions(size=(96, 128), frames=20, objects=(3, 6), late=0.5, vanish=0.2, leave=0.2)
LOOSE = (0.0, 9.0)  # limits that reject nothing: of what has to be high, and of what has to be low
FINDING = {"discover": DiscoverOptions(every_s=4 / 24), "identity": IdentityOptions()}


def rounds(monkeypatch, clips: TrueClips, ids, options, **errors) -> Iterator[Round]:
    """Automatic masklets of clips, scored as `evaluate` does it."""
    trial = Trial(clips, ("automatic",), None, Effort(), MIN_AREA)
    for seed, video_id in enumerate(ids):
        truth = clips.read(video_id)
        with clips.open(video_id) as source:
            tracker = TrueTracker(truth, source, seed, clips.changes(video_id), **errors)
            trial.__dict__["generator"] = tracker.install(monkeypatch, **options)
            yield trial._play_automatic(video_id, truth, source)


def test_late_objects_get_whole_masklets_none_twice_and_none_across_a_cut(monkeypatch):
    clips = JoinedClips(5, LATE, shots=2)
    played = list(rounds(monkeypatch, clips, clips.video_ids, FINDING | {"cuts": CutOptions()}, twice=0.3))
    found, crossed = late.figures(one.discovered for one in played), shots.shot_figures(one.shots for one in played)
    assert found["late_objects"] >= 30
    assert found["late_found"] >= 0.8  # whole: a mean IoU of 0.7 while they are visible; in time: within 3 frames of their first
    assert (late.FOUND, late.LATEST, late.DUPLICATE) == (0.7, 3, 0.8)
    assert found["duplicates_share"] <= 0.02
    assert crossed["masklets_across_shots"] == 0
    assert crossed["shot_change_recall"] == crossed["shot_change_precision"] == 1


def test_nothing_goes_on_across_a_dissolve(monkeypatch):
    clips = JoinedClips(3, LATE, shots=2, dissolve=6)
    played = list(rounds(monkeypatch, clips, clips.video_ids, FINDING | {"cuts": CutOptions()}, twice=0.3))
    found, crossed = late.figures(one.discovered for one in played), shots.shot_figures(one.shots for one in played)
    assert crossed["masklets_across_shots"] == 0 and crossed["shot_change_recall"] == 1
    assert found["late_found"] >= 0.7 and found["duplicates_share"] <= 0.02  # the end of a dissolve belongs to the shot before


def test_without_the_machinery_the_same_model_misses_all_of_it(monkeypatch):
    """That is, the figures above can fail."""
    clips = JoinedClips(2, LATE, shots=2)
    played = list(rounds(monkeypatch, clips, clips.video_ids, {"discover": DiscoverOptions(every_s=4 / 24)}, twice=0.3))
    crossed, found = shots.shot_figures(one.shots for one in played), late.figures(one.discovered for one in played)
    assert crossed["masklets_across_shots_share"] > 0.3 and found["duplicates_share"] > 0.02
    blind = list(rounds(monkeypatch, clips, clips.video_ids, {"identity": IdentityOptions()}))
    assert late.figures(one.discovered for one in blind)["late_found"] < 0.2


def test_limits_of_verdicts_that_were_chosen_on_some_clips_hold_on_others(monkeypatch):
    """The procedure behind the default limits, with a model that tracks every third object badly."""
    clips = SyntheticClips(24, replace(LATE, late=0.2, parts=0))

    def figures(ids, rules):
        options = FINDING | {"judge": JudgeOptions(rules)}
        played = rounds(monkeypatch, clips, ids, options, bad=0.35, noise=0.2)
        return VerdictFigures(tuple(masklet for one in played for masklet in one.judged))

    half = len(clips.video_ids) // 2
    chosen = figures(clips.video_ids[:half], VerdictRules()).best_limits()
    assert chosen.precision >= PRECISION == 0.95 and chosen.recall >= 0.7
    rules = VerdictRules(**{name: (LOOSE[name in LESS_IS_BETTER], limit) for name, limit in chosen.accept_from.items()})
    others = figures(clips.video_ids[half:], rules)
    bad = len(others.masklets) - others.good
    assert GOOD == 0.75 and others.good >= 20 and bad >= 10  # there is something to be told apart
    assert others.share_good("accept") >= 0.95
    assert others.recall >= 0.7
