"""Verdicts from made-up measures."""

import dataclasses

import pytest

from sam2_pipeline.config import JobConfig, JudgeSettings
from sam2_pipeline.errors import ConfigError
from sam2_pipeline.masklets.verdict import MEASURES, REASONS, VerdictRules, judge

RULES = VerdictRules(
    cycle_iou=(0.3, 0.7),
    reprompt_iou=(0.3, 0.7),
    predicted_iou=(0.3, 0.7),
    stability=(0.5, 0.8),
    flicker=(0.5, 0.2),
    max_coverage=0.9,
)
GOOD = {
    "visible_frame_count": 5,
    "size_rel": 0.1,
    "predicted_iou_mean": 0.9,
    "stability_score_mean": 0.95,
    "flicker": 0.0,
}


def verdict_on(cycle_iou=0.9, reprompt_iou=0.9, **measures):
    found = judge(GOOD | measures, cycle_iou, reprompt_iou, RULES)
    assert (found.cycle_iou, found.reprompt_iou) == (cycle_iou, reprompt_iou)
    return found.verdict, found.reasons


def test_good_in_everything():
    assert verdict_on() == ("accept", ())
    on_the_limit = {"predicted_iou_mean": 0.7, "stability_score_mean": 0.8, "flicker": 0.2}
    assert verdict_on(0.7, 0.7, **on_the_limit, size_rel=0.9) == ("accept", ())


@pytest.mark.parametrize("name", MEASURES)
def test_each_measure_decides(name):
    reject, accept = getattr(RULES, name)
    middle, bad = (reject + accept) / 2, reject + (reject - accept) / 10
    assert verdict_on(**{MEASURES[name]: middle}) == ("refine", (name,))
    assert verdict_on(**{MEASURES[name]: reject}) == ("refine", (name,)), "on the limit it is not rejected yet"
    assert verdict_on(**{MEASURES[name]: bad}) == ("reject", (name,))
    assert verdict_on(**{MEASURES[name]: None}) == ("accept", ()), "what is not known says nothing"


def test_the_worst_decides_and_names_its_reasons():
    assert verdict_on(0.5, 0.5, flicker=0.3) == ("refine", ("cycle_iou", "reprompt_iou", "flicker"))
    assert verdict_on(0.5, 0.1, flicker=0.9) == ("reject", ("reprompt_iou", "flicker"))
    assert verdict_on(size_rel=0.91) == ("reject", ("covers_frame",))
    nowhere = dict.fromkeys(["predicted_iou_mean", "stability_score_mean", "flicker"])
    assert verdict_on(None, None, visible_frame_count=0, size_rel=0.0, **nowhere) == ("reject", ("never_visible",))
    assert {"never_visible", "covers_frame", *MEASURES} == set(REASONS)


def test_settings_are_the_rules():
    settings, rules = JudgeSettings(), VerdictRules()
    assert not settings.enabled
    for field in dataclasses.fields(VerdictRules):
        assert getattr(settings, field.name) == getattr(rules, field.name)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("judge.cycle_iou=[0.7, 0.3]", r"judge.cycle_iou is \[0.7, 0.3\], expected \[reject below, accept from\]"),
        ("judge.flicker=[0.1, 0.3]", "expected .reject above, accept up to., in falling order"),
        ("judge.stability=0.5", "judge.stability is 0.5, expected a list"),
        ("judge.reprompt_frames=0", "judge.reprompt_frames is 0, expected at least 1"),
        ("clean.max_hole_area=-1", "clean.max_hole_area is -1, expected at least 0"),
    ],
)
def test_settings_that_make_no_sense(override, message):
    with pytest.raises(ConfigError, match=message):
        JobConfig.load(None, [override])


def test_rules_decide_results():
    """Runs that judge by other rules do not share an output."""
    hashes = {
        JobConfig.load(None, given).config_hash(model="m", weights_sha256="0", prompts_sha256=None)
        for given in ([], ["judge.enabled=true"], ["judge.cycle_iou=[0.1, 0.9]"], ["clean.min_component_area=200"])
    }
    assert len(hashes) == 4
