"""Whole objects on local disk, in memory, and over a real S3 protocol."""

import concurrent.futures
import errno
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading

import fsspec
import pytest

from sam2_pipeline.errors import ConfigError, StorageError
from sam2_pipeline.io.storage import Storage


def names(storage, *args, **kwargs):
    return [name for name, _ in storage.list(*args, **kwargs)]


def test_objects_round_trip(storage, tmp_path):
    storage.write_bytes("masks/a b.bin", b"first")
    storage.write_bytes("masks/a b.bin", b"second")
    source = tmp_path / "source"
    source.write_bytes(b"from a file")
    storage.put_file(source, "masks/deep/c.bin")
    storage.write_bytes("top", b"")

    assert storage.read_bytes("masks/a b.bin") == b"second"
    assert storage.size("masks/a b.bin") == 6
    with storage.open("masks/deep/c.bin") as file:
        file.seek(5)
        assert file.read() == b"a file"
    storage.get_file("masks/a b.bin", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"second"

    assert list(storage.list("masks")) == [("masks/a b.bin", 6)]
    assert list(storage.list("masks", recursive=True)) == [("masks/a b.bin", 6), ("masks/deep/c.bin", 11)]
    assert names(storage) == ["top"]
    assert names(storage, "absent") == []
    assert storage.exists("top")
    assert not storage.exists("absent")

    storage.delete(["top", "absent", "masks/a b.bin"])
    assert names(storage, recursive=True) == ["masks/deep/c.bin"]


def test_listings_are_never_stale(storage):
    assert names(storage, "masks") == []
    other = pickle.loads(pickle.dumps(storage))
    other.write_bytes("masks/a", b"1")
    assert names(storage, "masks") == ["masks/a"]
    other.write_bytes("masks/a", b"123")
    other.write_bytes("masks/b", b"2")
    assert list(storage.list("masks")) == [("masks/a", 3), ("masks/b", 1)]
    other.delete(["masks/a"])
    assert not storage.exists("masks/a")


def test_absent_objects_are_named(storage, tmp_path):
    for action in (storage.read_bytes, storage.size, storage.open, lambda name: storage.get_file(name, tmp_path / "copy")):
        with pytest.raises(StorageError, match=r"masks/none.*does not exist"):
            action("masks/none")


@pytest.mark.parametrize("name", ["/etc/passwd", "../other", "masks/../../x", "a//b", "./a", "a/", "a\0b"])
def test_names_cannot_leave_the_root(storage, name):
    for action in (storage.read_bytes, storage.exists, lambda n: storage.write_bytes(n, b""), lambda n: list(storage.list(n))):
        with pytest.raises(StorageError, match="plain relative name"):
            action(name)


def test_exclusive_creation(storage):
    assert storage.create_exclusive("_run/commits/u.json", b"mine")
    assert not storage.create_exclusive("_run/commits/u.json", b"other")
    assert storage.read_bytes("_run/commits/u.json") == b"mine"
    storage.check_exclusive()
    assert names(storage, "_run") == []


def test_one_of_many_threads_wins(storage):
    contenders = 8
    gate = threading.Barrier(contenders)

    def contend(number):
        mine = pickle.loads(pickle.dumps(storage))
        gate.wait()
        return mine.create_exclusive("_run/commit", f"attempt {number}".encode())

    with concurrent.futures.ThreadPoolExecutor(contenders) as pool:
        won = list(pool.map(contend, range(contenders)))
    assert sum(won) == 1
    assert storage.read_bytes("_run/commit") == f"attempt {won.index(True)}".encode()


def _contend(url, number, gate, results):
    gate.wait()
    results.put((number, Storage(url).create_exclusive("_run/commit", f"attempt {number}".encode())))


@pytest.mark.parametrize("place", ["local", "s3"])
def test_one_of_two_processes_wins(place, tmp_path, request):
    url = str(tmp_path) if place == "local" else request.getfixturevalue("s3_url")
    context = multiprocessing.get_context("spawn")  # forking a process that runs s3fs's event loop would hang
    gate, results = context.Barrier(2), context.Queue()
    workers = [context.Process(target=_contend, args=(url, number, gate, results)) for number in range(2)]
    for worker in workers:
        worker.start()
    outcome = dict(results.get(timeout=120) for _ in workers)
    for worker in workers:
        worker.join(30)
    assert sorted(outcome.values()) == [False, True]
    winner = next(number for number, won in outcome.items() if won)
    assert Storage(url).read_bytes("_run/commit") == f"attempt {winner}".encode()


def test_lost_reply_still_wins(s3_url, monkeypatch):
    """The PUT succeeds, its reply is lost, and the client's retry hears that the object exists."""
    storage = Storage(s3_url)
    put = storage.fs.pipe_file

    def put_twice(path, data, mode):
        put(path, data, mode=mode)
        put(path, data, mode=mode)

    monkeypatch.setattr(storage.fs, "pipe_file", put_twice)
    assert storage.create_exclusive("commit", b"attempt 1")
    assert not storage.create_exclusive("commit", b"attempt 2")


def test_conflicting_puts_are_tried_again(memory_url, monkeypatch):
    storage = Storage(memory_url)
    put, refusals = storage.fs.pipe_file, ["ConditionalRequestConflict"] * 2

    def refuse_twice(path, data, mode):
        if refusals:
            raise OSError(errno.EIO, refusals.pop())
        put(path, data, mode=mode)

    monkeypatch.setattr(storage.fs, "pipe_file", refuse_twice)
    assert storage.create_exclusive("commit", b"attempt 1")
    assert not refusals


def test_store_that_ignores_the_condition_is_found_out(memory_url, monkeypatch):
    storage = Storage(memory_url)
    put = storage.fs.pipe_file
    monkeypatch.setattr(storage.fs, "pipe_file", lambda path, data, mode: put(path, data))
    with pytest.raises(StorageError, match="If-None-Match"):
        storage.check_exclusive()


def test_interrupted_local_writes_stay_invisible(tmp_path):
    """A process killed in the middle of a write leaves neither an object nor a half of one."""
    script = (
        "import os, signal, sys\n"
        "from sam2_pipeline.io import storage\n"
        "os.replace = lambda *a: os.kill(os.getpid(), signal.SIGKILL)\n"
        "storage.Storage(sys.argv[1]).write_bytes('masks/part', b'x' * 1000)\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)]).returncode == -9
    storage = Storage(tmp_path)
    assert not storage.exists("masks/part")
    assert names(storage, "masks") == []
    (left,) = names(storage, "masks", hidden=True)
    assert left.startswith("masks/.part")


def test_failed_write_keeps_the_old_object_and_no_litter(tmp_path, monkeypatch):
    storage = Storage(tmp_path)
    storage.write_bytes("masks/part", b"old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"masks/part: cannot write it: no space left"):
        storage.write_bytes("masks/part", b"new")
    with pytest.raises(StorageError, match=r"commit: cannot create it: no space left"):
        storage.create_exclusive("commit", b"new")
    assert os.listdir(tmp_path / "masks") == ["part"]
    assert storage.read_bytes("masks/part") == b"old"
    assert not storage.exists("commit")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_really_full_device(tmp_path, monkeypatch):
    monkeypatch.setattr("sam2_pipeline.io.storage.open", lambda path, mode: open("/dev/full", mode), raising=False)  # noqa: SIM115
    with pytest.raises(StorageError, match="no space left"):
        Storage(tmp_path).write_bytes("part", b"data")


def test_place_that_cannot_be_written_to():
    """/proc refuses new files even from root."""
    with pytest.raises(StorageError, match=r"/proc/nowhere/part: cannot write it"):
        Storage("/proc/nowhere").write_bytes("part", b"")


@pytest.mark.parametrize(
    ("code", "says"), [(errno.EROFS, "read-only"), (errno.EACCES, "permission denied"), (errno.EDQUOT, "no space left")]
)
def test_refusals_are_told_apart(tmp_path, monkeypatch, code, says):
    def refuse(*_, **__):
        raise OSError(code, os.strerror(code))

    storage = Storage(tmp_path)
    monkeypatch.setattr(os, "makedirs", refuse)
    for action in (
        lambda: storage.write_bytes("a/b", b""),
        lambda: storage.create_exclusive("a/b", b""),
        storage.check_exclusive,
    ):
        with pytest.raises(StorageError, match=says):
            action()


def test_output_that_is_a_file(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(StorageError, match="cannot write it"):
        Storage(tmp_path / "out").write_bytes("part", b"")


def test_unreadable_folder_is_not_an_empty_one(tmp_path, monkeypatch):
    storage = Storage(tmp_path)

    def forbidden(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(storage.fs, "ls", forbidden)
    with pytest.raises(StorageError, match="permission denied"):
        list(storage.list("_run/commits"))


def test_missing_bucket_and_credentials(s3_url, monkeypatch):
    with pytest.raises(StorageError, match="s3://no-such-bucket-here/x"):
        Storage("s3://no-such-bucket-here").write_bytes("x", b"")
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(variable)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(StorageError, match="no usable credentials"):
        Storage(s3_url).write_bytes("x", b"")


def test_endpoint_by_option_wins_over_nothing(s3_server, s3_url, monkeypatch):
    Storage(s3_url).write_bytes("x", b"1")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    assert Storage(s3_url, {"endpoint_url": s3_server, "key": "k", "secret": "s"}).read_bytes("x") == b"1"


def test_urls(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for url in ("~/out", "out", "out/", f"file://{tmp_path}/out", tmp_path / "out"):
        assert Storage(url).url == f"{tmp_path}/out"
    assert Storage("s3://bucket/a/", {"anon": True}).locate("b") == "s3://bucket/a/b"
    assert "secret" not in repr(Storage("s3://bucket", {"secret": "secret"}))
    for url in ("", "nosuch://bucket/x"):
        with pytest.raises(ConfigError, match=r"empty|nosuch"):
            Storage(url)
