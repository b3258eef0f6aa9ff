"""Outputs and inputs that fail a run before or while it works: one clear line, the right exit status, and a run that resumes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from pathlib import Path

import fsspec
import pytest
from fakes import FakeFactory, write_clip
from faulty_proxy import s3_process

from sam2_pipeline import cli
from sam2_pipeline.pipeline import prepare

ROOT = Path(__file__).parent.parent
RESUMABLE = "interrupted; what is committed stays, run the same command again to resume\n"


@pytest.fixture
def stand_in(monkeypatch):
    """Runs use the stand-in for the model; its events can be set."""
    made = {"events": ()}
    monkeypatch.setattr(prepare, "ModelFactory", lambda config: FakeFactory(made["events"]))
    return made


@pytest.fixture
def inputs(tmp_path):
    for name in "abc":
        write_clip(tmp_path / "in" / f"{name}.mp4")
    return str(tmp_path / "in")


@pytest.fixture(scope="module")
def server():
    pytest.importorskip("moto.server")
    with s3_process() as address:
        yield f"http://{address}"


@pytest.fixture
def bucket(server, monkeypatch):
    """A bucket on a store of which the variables tell."""
    secrets = {"ACCESS_KEY_ID": "a-key-hunter1", "SECRET_ACCESS_KEY": "a-secret-hunter2", "DEFAULT_REGION": "us-east-1"}
    for name, value in (secrets | {"ENDPOINT_URL": server}).items():
        monkeypatch.setenv(f"AWS_{name}", value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    bucket = f"b-{uuid.uuid4().hex}"
    fsspec.filesystem("s3").call_s3("create_bucket", Bucket=bucket)
    yield bucket
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def _run(*arguments, capsys) -> tuple[int, str]:
    """Exit status, and the last line that was said."""
    status = cli.main(["run", *arguments, "--ray", "off"])
    said = capsys.readouterr().err.splitlines()
    assert not any("Traceback" in line for line in said)
    return status, said[-1]


def test_a_place_that_cannot_be_written_to(inputs, stand_in, capsys):
    status, said = _run(inputs, "/sys/masklets", capsys=capsys)
    assert status == 1
    assert "/sys/masklets" in said and "cannot create" in said


def test_a_disk_that_fills_up(inputs, tmp_path, stand_in, capsys):
    stand_in["events"] = (("b.mp4", "disk-full"),)
    status, said = _run(inputs, str(tmp_path / "out"), capsys=capsys)
    assert status == 1 and "No space left on device" in said
    stand_in["events"] = ()
    assert _run(inputs, str(tmp_path / "out"), capsys=capsys)[0] == 0


REAL_DISK = """
import subprocess, sys
from fakes import FakeFactory
from sam2_pipeline import cli
from sam2_pipeline.io.dataset import MaskletDataset
from sam2_pipeline.pipeline import prepare

kind, inputs, disk = sys.argv[1:]
prepare.ModelFactory = lambda config: FakeFactory()

def mount(options):
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], check=True)

def run(*more):
    return cli.main(["run", inputs, disk + "/out", "--ray", "off", "--quiet", *more])

mount("size=80k" if kind == "full" else "size=50m")
if kind == "read-only":
    assert run("--max-videos", "1") == 0
    mount("remount,ro")
print("status", run(), file=sys.stderr)
mount("remount,rw,size=50m")
assert run() == 0
assert MaskletDataset(disk + "/out").videos().num_rows == 3
assert cli.main(["verify", disk + "/out"]) == 0
"""


def _may_mount() -> bool:
    return shutil.which("unshare") is not None and subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not _may_mount(), reason="no disk may be mounted here, not even in a namespace")
@pytest.mark.parametrize(
    ("kind", "reason"), [("full", "no space left on the device"), ("read-only", "the file system is read-only")]
)
def test_a_disk_that_is_really_full_or_read_only(inputs, tmp_path, kind, reason):
    """A disk of its own, in a namespace of its own; once there is room, or leave to write, the same command goes on."""
    (tmp_path / "disk").mkdir()
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    command = ["unshare", "-rm", sys.executable, "-c", REAL_DISK, kind, inputs, str(tmp_path / "disk")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *_, said, status = done.stderr.splitlines()
    assert said.startswith("sam2-pipeline: ") and reason in said and str(tmp_path / "disk" / "out") in said
    assert status == "status 1" and "Traceback" not in done.stderr and "0 errors" in done.stdout


@pytest.mark.parametrize("place", ["input", "output"])
def test_a_bucket_that_is_not_there(inputs, stand_in, bucket, capsys, place, tmp_path):
    places = (f"s3://{bucket}-absent/in", str(tmp_path / "out")) if place == "input" else (inputs, f"s3://{bucket}-absent/out")
    status, said = _run(*places, capsys=capsys)
    assert status == (2 if place == "input" else 1)
    assert f"{bucket}-absent" in said and ("no such" in said or "does not exist" in said or "NoSuchBucket" in said)
    fs = fsspec.filesystem("s3")
    fs.call_s3("create_bucket", Bucket=f"{bucket}-absent")
    fs.put(inputs, f"{bucket}-absent/in", recursive=True)
    assert _run(*places, capsys=capsys)[0] == 0


def test_a_bucket_that_vanishes(inputs, stand_in, bucket, capsys, monkeypatch):
    fs = fsspec.filesystem("s3")
    vanished = []

    class Vanishing(FakeFactory):
        def build(self, threads=None):
            generator, facts = super().build(threads)
            return _Before(generator, "b.mp4", lambda: vanished or vanished.append(fs.rm(bucket, recursive=True))), facts

    monkeypatch.setattr(prepare, "ModelFactory", lambda config: Vanishing())
    status, said = _run(inputs, f"s3://{bucket}/out", capsys=capsys)
    assert vanished and status == 1 and bucket in said and "bucket does not exist" in said
    fs.call_s3("create_bucket", Bucket=bucket)
    monkeypatch.setattr(prepare, "ModelFactory", lambda config: FakeFactory())
    assert _run(inputs, f"s3://{bucket}/out", capsys=capsys)[0] == 0


class _Before:
    def __init__(self, generator, name, act):
        self._generator, self._name, self._act = generator, name, act

    @property
    def frame_size(self):
        return self._generator.frame_size

    def stream(self, source, prompts=None, *, annotate_fps=None):
        if self._name in source.url:
            self._act()
        return self._generator.stream(source, prompts, annotate_fps=annotate_fps)


def test_wrong_credentials(inputs, stand_in, bucket, server, capsys, tmp_path):
    fsspec.filesystem("s3").put(inputs, f"{bucket}/in", recursive=True)
    places = ((inputs, f"s3://{bucket}/out"), (f"s3://{bucket}/in", str(tmp_path / "out")))
    _post(server, "0")  # from now on the store looks at credentials
    try:
        for source, output in places:
            status, said = _run(source, output, capsys=capsys)
            assert status == 1 and bucket in said
            assert "denied" in said.lower() or "forbidden" in said.lower() or "access key" in said.lower()
            assert "hunter" not in said
    finally:
        _post(server, "1e9")
    assert not (tmp_path / "out").exists()
    for source, output in places:  # the same command, with the right ones
        assert _run(source, output, capsys=capsys)[0] == 0


def _post(server: str, body: str) -> None:
    headers = {"Content-Type": "text/plain"}
    request = urllib.request.Request(f"{server}/moto-api/reset-auth", body.encode(), headers)
    urllib.request.urlopen(request, timeout=30).read()


def test_no_credential_is_in_any_table_log_or_record(inputs, stand_in, bucket, capsys, server):
    """Neither those of the environment nor those of --storage-option; not even when videos fail for want of them."""
    fs = fsspec.filesystem("s3")
    for name in "abc":
        fs.put_file(f"{inputs}/{name}.mp4", f"{bucket}/in/{name}.mp4")
    fs.pipe_file(f"{bucket}/in/list.csv", b"url\na.mp4\nb.mp4\nabsent.mp4\n")
    options = [f"key={os.environ['AWS_ACCESS_KEY_ID']}", f"secret={os.environ['AWS_SECRET_ACCESS_KEY']}"]
    options += [f"endpoint_url={server}"]
    given = [part for option in options for part in ("--storage-option", option)]
    places = (f"s3://{bucket}/in/list.csv", f"s3://{bucket}/out")
    assert cli.main(["run", *places, "--ray", "off", "--json-logs", *given]) == 3
    assert cli.main(["status", places[1], *given]) == 0
    assert cli.main(["compact", places[1], "--grace", "0", *given]) == 0
    assert cli.main(["verify", places[1], *given]) == 0
    said = capsys.readouterr()
    stored = [fs.cat_file(path) for path in fs.find(f"{bucket}/out")]
    assert len(stored) >= 6 and "absent" in said.err
    assert not any(b"hunter" in data for data in [*stored, said.out.encode(), said.err.encode()])


SLOW = """
import sys
from fakes import FakeFactory
from sam2_pipeline import cli
from sam2_pipeline.pipeline import prepare
prepare.ModelFactory = lambda config: FakeFactory(folder=sys.argv[1], delay_s=60)
if __name__ == "__main__":
    sys.exit(cli.main(sys.argv[2:]))
"""


@pytest.mark.ray
def test_the_second_ctrl_c_waits_for_nobody(inputs, tmp_path, stand_in, capsys):
    """The first lets workers end their video, here for a minute a frame."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    arguments = ["run", inputs, str(tmp_path / "out"), "--ray", "local", "--set", "units.videos_per_unit=3"]
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(tmp_path), *arguments], env=environment, stderr=subprocess.PIPE, text=True
    )
    marker = tmp_path / "out" / "_run" / "attempts"
    deadline = time.monotonic() + 240
    while not any(json.loads(file.read_text() or "{}").get("video_ids") for file in marker.rglob("[0-9]*.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    time.sleep(2)
    assert process.poll() is None  # it waits for the worker
    process.send_signal(signal.SIGINT)
    asked = time.monotonic()
    said = process.communicate(timeout=60)[1]
    assert time.monotonic() - asked < 20
    assert process.returncode == 130 and said.endswith(RESUMABLE) and "Traceback" not in said
    assert _run(inputs, str(tmp_path / "out"), capsys=capsys)[0] == 0
