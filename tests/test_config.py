"""JobConfig: defaults, files, overrides; what is refused, and with which words."""

import pickle

import pytest

from sam2_pipeline.config import GenerateSettings, JobConfig, parse_storage_option
from sam2_pipeline.errors import ConfigError


def test_defaults_are_those_of_the_data_engine():
    generate = JobConfig().generate
    assert generate.points_per_side == 32
    assert generate.crop_grids == ((2, 16), (4, 4))
    assert (generate.pred_iou_thresh, generate.stability_score_thresh) == (None, None)  # what suits the model


def test_later_sources_win(tmp_path):
    file = tmp_path / "job.yaml"
    file.write_text("generate:\n  points_per_side: 16\n  pred_iou_thresh: 0.5\ntracking:\nray: {address: off}\n")
    overrides = ["generate.points_per_side=8", "model.name=a"]
    config = JobConfig.load(str(file), overrides, {"model.name": "b", "model.device": None})
    assert config.generate.points_per_side == 8
    assert config.generate.pred_iou_thresh == 0.5
    assert config.model.name == "b"
    assert config.ray.address == "off"  # which YAML reads as False


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tracking.lane=4", "unknown setting tracking.lane; did you mean tracking.lanes?"),
        ("generat.max_objects=4", "unknown setting generat; did you mean generate?"),
        ("tracking.lanes=0", "tracking.lanes is 0, expected at least 1"),
        ("tracking.lanes=two", "tracking.lanes is 'two', expected a whole number"),
        ("tracking.lanes=true", "tracking.lanes is True, expected a whole number"),
        ("tracking.backward=1", "tracking.backward is 1, expected true or false"),
        ("tracking.memory_iou=2", "tracking.memory_iou is 2.0, expected at most 1.0"),
        ("tracking=3", "tracking is 3, expected a mapping of settings"),
        ("generate.pred_iou_thresh=.nan", "generate.pred_iou_thresh is nan, expected a finite number"),
        ("generate.pred_iou_thresh=1.5", "generate.pred_iou_thresh is 1.5, expected at most 1.0"),
        ("generate.max_mask_share=0", "generate.max_mask_share is 0.0, expected more than 0.0"),
        ("generate.crop_grids=[[2]]", "generate.crop_grids[0] is [2], expected 2 values"),
        ("generate.crop_grids=[[2, 0]]", "generate.crop_grids[0] is [2, 0], expected"),
        ("model.image_size=200", "model.image_size is 200, expected a multiple of 32"),
        ("model.device=tpu", "model.device is 'tpu', expected cpu, cuda, cuda:N or mps"),
        ("model.dtype=int8", "model.dtype is 'int8', expected one of float32, bfloat16, float16"),
        ("prompts.on_error=ignore", "prompts.on_error is 'ignore', expected one of error, skip"),
        ("max_videos.x=1", "unknown setting"),
        ("storage_options.key=k", "storage_options may hold credentials"),
        ("nonsense", "expected key.path=value"),
        ("a..b=1", "expected key.path=value"),
        ("generate.crop_grids=[", "not valid YAML"),
    ],
)
def test_wrong_settings_are_named(override, message):
    with pytest.raises(ConfigError) as caught:
        JobConfig.load(overrides=[override], options={"max_videos": 3} if override.startswith("generate.c") else None)
    if not override.startswith("max_videos.x"):
        assert message in str(caught.value)


def test_settings_are_checked_however_they_are_made():
    with pytest.raises(ConfigError, match=r"generate.points_per_side is 0"):
        GenerateSettings(points_per_side=0)


@pytest.mark.parametrize(("text", "value"), [("1e-3", 1e-3), ("1", 1.0), ("0.25", 0.25)])
def test_numbers_may_be_written_as_people_do(text, value):
    assert JobConfig.load(overrides=[f"generate.pred_iou_thresh={text}"]).generate.pred_iou_thresh == value


@pytest.mark.parametrize("text", ["- 1\n", "a: [", "\x00"])
def test_a_file_that_is_no_configuration(tmp_path, text):
    file = tmp_path / "job.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match="--config"):
        JobConfig.load(str(file))
    with pytest.raises(ConfigError, match="No such file"):
        JobConfig.load(str(tmp_path / "absent.yaml"))


def _hash(*overrides):
    return JobConfig.load(overrides=overrides).config_hash(model="m", weights_sha256="w", prompts_sha256=None)


def test_the_hash_covers_what_decides_the_results_only():
    assert _hash() == _hash("ray.workers=4", "model.device=cpu", "tracking.lanes=4", "max_videos=1", "output=elsewhere")
    for decisive in ("generate.points_per_side=8", "tracking.backward=false", "annotate.fps=6", "limits.max_duration_s=9"):
        assert _hash() != _hash(decisive)
    config = JobConfig()
    same = {"model": "m", "weights_sha256": "w", "prompts_sha256": None}
    for name in same:
        assert config.config_hash(**same) != config.config_hash(**(same | {name: "other"}))


def test_a_dump_makes_the_same_configuration_again():
    config = JobConfig.load(overrides=["generate.crop_grids=[[2, 8]]", "annotate.fps=6", "input=a", "tracking.lanes=3"])
    dump = config.to_dict()
    again = JobConfig.load(options={"input": dump["input"]} | {f"generate.{k}": v for k, v in dump["generate"].items()})
    assert again.generate == config.generate and again.input == "a"


def test_storage_options_are_carried_but_never_shown():
    config = JobConfig.load(options={"output": "s3://b/x"}, storage_options={"secret": "hunter2"})
    for shown in (repr(config), str(config.to_dict()), str(config.decisive())):
        assert "hunter2" not in shown
    assert pickle.loads(pickle.dumps(config)).storage_options == {"secret": "hunter2"}
    assert config.storage_options_for("s3://b/x") == {"secret": "hunter2"}
    assert config.storage_options_for("/tmp/x") == config.storage_options_for("file:///tmp/x") == {}


def test_storage_options_nest_and_keep_text():
    assert parse_storage_option("client_kwargs.region_name=x") == (["client_kwargs", "region_name"], "x")
    assert parse_storage_option("anon=true") == (["anon"], True)
    assert parse_storage_option("secret=0123=") == (["secret"], "0123=")
    with pytest.raises(ConfigError) as caught:
        parse_storage_option("hunter2")
    assert "hunter2" not in str(caught.value)


def test_local_paths_become_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    config = JobConfig.load(options={"input": "in/*.mp4", "output": "s3://b/out", "prompts.file": "p.csv"}).anchored()
    assert config.input == str(tmp_path / "in/*.mp4")
    assert config.output == "s3://b/out"
    assert config.prompts.file == str(tmp_path / "p.csv")
    assert config.model.checkpoint is None
