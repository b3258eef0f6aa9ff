"""The command line: exit codes, messages, and what it writes where."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fakes import FakeFactory, write_clip

from sam2_pipeline import cli
from sam2_pipeline.model.checkpoint import EMBEDDED_WEIGHTS
from sam2_pipeline.pipeline import prepare

ROOT = Path(__file__).parent.parent
VERBS = ("run", "plan", "status", "retry", "verify", "compact", "models", "doctor", "live")


@pytest.fixture
def stand_in(monkeypatch):
    """Runs use the stand-in for the model; its events can be set."""
    made = {"events": ()}
    monkeypatch.setattr(prepare, "ModelFactory", lambda config: FakeFactory(made["events"]))
    return made


@pytest.fixture
def places(tmp_path):
    for name in "ab":
        write_clip(tmp_path / "in" / f"{name}.mp4")
    return str(tmp_path / "in"), str(tmp_path / "out")


def _main(*arguments: str) -> int:
    try:
        return cli.main(arguments)
    except SystemExit as stop:
        return stop.code


def test_help_is_fast_and_imports_nothing_heavy():
    code = (
        "import sys, sam2_pipeline.cli as c\n"
        "try: c.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'ray', 'pyarrow', 'av', 'numpy') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True).stdout
    assert shown.endswith("[]\n")
    assert all(verb in shown for verb in (*VERBS, "bench", "130"))


@pytest.mark.parametrize("verb", VERBS)
def test_every_verbs_help_has_an_example(verb, capsys):
    assert _main(verb, "--help") == 0
    assert re.search(rf"examples?:\n  sam2-pipeline {verb}", capsys.readouterr().out)


def test_a_run_from_start_to_verify(places, stand_in, capsys):
    assert _main("run", *places, "--ray", "off") == 0
    said = capsys.readouterr()
    assert "2 videos: 2 ok, 0 failed; 4 masklets" in said.out
    assert "2 to do" in said.err
    assert _main("verify", places[1]) == 0
    assert "0 errors, 0 warnings" in capsys.readouterr().out
    assert _main("status", places[1], "--json") == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["videos"], status["done"], status["left"], status["failed"]) == (2, 2, 0, 0)
    assert _main("plan", *places, "--json") == 0
    assert json.loads(capsys.readouterr().out)["to_do"] == 0


def test_a_bad_video_gives_status_3_and_is_retried(places, stand_in, capsys):
    stand_in["events"] = (("b.mp4", "raise"),)
    assert _main("run", *places, "--ray", "off", "--quiet") == 3
    said = capsys.readouterr()
    assert said.out == "" and "failed: b: RuntimeError: the stand-in was asked to fail" in said.err
    assert _main("status", places[1]) == 0
    assert "1 failed" in capsys.readouterr().out
    stand_in["events"] = (("a.mp4", "raise"),)
    assert _main("retry", places[1], "--ray", "off") == 0
    assert "2 ok, 0 failed" in capsys.readouterr().out


def test_verify_finds_damage(places, stand_in, capsys):
    assert _main("run", *places, "--ray", "off") == 0
    part = next(Path(places[1], "masks").iterdir())
    part.write_bytes(part.read_bytes()[:-1])
    capsys.readouterr()
    assert _main("verify", places[1]) == 1
    assert part.name in capsys.readouterr().out


def test_json_logs_are_json(places, stand_in, capsys):
    assert _main("run", *places, "--ray", "off", "--json-logs") == 0
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [event["event"] for event in events] == ["start", "video_done", "video_done", "progress", "end"]
    assert events[-1]["masklets"] == 4 and events[3]["done"] == 2
    assert {event["video_id"]: event["masklets"] for event in events[1:3]} == {"a": 2, "b": 2}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "tracking.lane=4"], "unknown setting tracking.lane; did you mean tracking.lanes?"),
        (["--set", "generate.max_objects=-1"], "generate.max_objects is -1, expected at least 1"),
        (["--config", "/nowhere.yaml"], "--config /nowhere.yaml: No such file"),
        (["--image-size", "100"], "model.image_size is 100"),
        (["--fps", "0"], "annotate.fps is 0.0, expected more than 0"),
        (["--workers", "two"], "argument --workers: invalid int value"),
        (["--no-such-option"], "unrecognized arguments: --no-such-option"),
        (["--prompts", "/nowhere.csv"], "/nowhere.csv: cannot read prompts"),
        (["--quiet", "--json-logs"], "not allowed with argument"),
        (["--storage-option", "secret"], "expected key=value"),
    ],
)
def test_bad_usage_is_one_line_and_writes_nothing(places, stand_in, capsys, arguments, message):
    assert _main("run", *places, "--ray", "off", *arguments) == 2
    said = capsys.readouterr()
    assert message in said.err and said.err.count("\n") == 1 and said.out == ""
    assert not Path(places[1]).exists()


def test_an_unknown_model_is_refused_before_torch_is_loaded(places, capsys):
    assert _main("run", *places, "--ray", "off", "--model", "sam3") == 2
    assert "unknown model 'sam3'" in capsys.readouterr().err
    assert not Path(places[1]).exists()


@pytest.mark.parametrize("verb", ["status", "retry", "verify"])
def test_an_output_without_a_run(verb, tmp_path, capsys):
    assert _main(verb, str(tmp_path / "none")) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "none").exists()


def test_without_a_verb_or_with_a_wrong_one(capsys):
    assert _main() == 2
    assert _main("rum") == 2
    assert "sam2-pipeline: " in capsys.readouterr().err


def test_models_are_listed(capsys):
    assert _main("models") == 0
    shown = capsys.readouterr().out
    assert "sam2.1_hiera_tiny" in shown and "sam2_hiera_large" in shown


def test_doctor_examines_this_machine(tmp_path, capsys):
    assert _main("doctor", "--output", str(tmp_path / "out"), "--json") == 0
    checks = {check["subject"]: check for check in json.loads(capsys.readouterr().out)}
    assert checks["run-length masks"]["verdict"] == checks["output"]["verdict"] == "ok"
    assert "h264" in checks["video decoders"]["finding"]
    assert list((tmp_path / "out").rglob("*.json")) == []


def test_doctor_finds_an_output_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert _main("doctor", "--output", str(tmp_path / "file" / "out")) == 1
    assert re.search(r"^bad +output", capsys.readouterr().out, re.MULTILINE)


SLOW = """
import sys
from fakes import FakeFactory
from sam2_pipeline import cli
from sam2_pipeline.pipeline import prepare
prepare.ModelFactory = lambda config: FakeFactory(delay_s=float(sys.argv[1]))
if __name__ == "__main__":
    sys.exit(cli.main(sys.argv[2:]))
"""


def test_a_run_that_finds_nothing_says_why(places, tmp_path, capsys):
    settings = [f"generate.{name}" for name in ("pred_iou_thresh=0.999", "points_per_side=2", "crop_grids=[]")]
    arguments = ["--ray", "off", "--image-size", "128", *(word for given in settings for word in ("--set", given))]
    assert _main("run", *places, *arguments) == 0
    said = capsys.readouterr().out
    assert "0 masklets" in said and "no mask passed the filters" in said and "--model sam2.1_hiera_tiny" in said
    weights = str(EMBEDDED_WEIGHTS)
    assert _main("run", places[0], str(tmp_path / "own"), "--checkpoint", weights, *arguments) == 0
    said = capsys.readouterr().out
    assert "no mask passed the filters" in said and "sam2.1_hiera_tiny" not in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("ray", ["off", pytest.param("local", marks=pytest.mark.ray)])
def test_an_interrupted_run_ends_with_130_and_resumes(places, stand_in, ray, number):
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    command = [sys.executable, "-c", SLOW, "0.5", "run", *places, "--ray", ray]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    attempts, deadline = Path(places[1], "_run", "attempts"), time.monotonic() + 120
    while not list(attempts.rglob("*.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert said.endswith("interrupted; what is committed stays, run the same command again to resume\n")
    assert "Traceback" not in said
    assert _main("run", *places, "--ray", "off", "--quiet") == 0


@pytest.mark.parametrize(
    "module, function, arguments, advised",
    [
        ("running", "run", ("in", "out"), True),
        ("running", "retry", ("out",), True),
        ("running", "compact", ("out",), True),
        ("datasets", "import_", ("in", "out"), True),
        ("models", "train", ("--output", "out"), True),
        ("models", "evaluate", ("predictions", "truth"), False),
        ("datasets", "export", ("in", "out", "--format", "sav"), False),
        ("running", "demo", (), False),
    ],
)
def test_who_is_interrupted_is_told_to_resume_where_that_can_be(module, function, arguments, advised, monkeypatch, capsys):
    def interrupted(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"sam2_pipeline.commands.{module}.{function}", interrupted)
    assert _main(function.rstrip("_"), *arguments) == 130
    said = capsys.readouterr().err
    assert said.endswith(f"interrupted{'; what is committed stays, run the same command again to resume' if advised else ''}\n")


def test_what_fails_because_of_a_signal_is_an_interrupt(monkeypatch, capsys):
    """As loaders of training do, which a signal to the whole group of processes (scancel, timeout) ends as well."""

    def losing_its_loaders(options):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        finally:
            raise RuntimeError("DataLoader worker is killed by signal: Terminated.")

    monkeypatch.setattr("sam2_pipeline.commands.models.train", losing_its_loaders)
    assert _main("train", "--output", "out") == 130
    assert capsys.readouterr().err.endswith("run the same command again to resume\n")


def test_an_interrupt_that_a_library_swallows_is_not_lost(places, stand_in, monkeypatch, capsys):
    """As fsspec's ``exists`` does, which catches everything."""
    from sam2_pipeline.io.storage import Storage

    def swallowing(self, name):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        except BaseException:
            return False

    monkeypatch.setattr(Storage, "exists", swallowing)
    assert _main("run", *places, "--ray", "off") == 130
    assert "interrupted" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
