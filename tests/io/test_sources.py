"""What INPUT means, and the ids that videos get."""

import io
import tarfile

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import videos

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.io.decode import open_video
from sam2_pipeline.io.sources import list_videos


def make(root, *names):
    """Files that hold their own names."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


def ids(source, **options):
    refs = list(list_videos(source, **options))
    assert len({ref.video_id for ref in refs}) == len(refs)
    return [ref.video_id for ref in refs]


def test_one_file(tmp_path, monkeypatch):
    make(tmp_path, "a.b.mp4", "odd.extension")
    (ref,) = list_videos(tmp_path / "a.b.mp4")
    assert (ref.video_id, ref.uri, ref.size_bytes) == ("a.b", str(tmp_path / "a.b.mp4"), 7)
    assert ids(tmp_path / "odd.extension") == ["odd.extension"]
    monkeypatch.chdir(tmp_path)
    assert [ref.uri for ref in list_videos("a.b.mp4")] == [str(tmp_path / "a.b.mp4")]  # workers have other working directories


def test_a_folder_is_searched_in_order(tmp_path):
    make(
        tmp_path,
        "z.mp4",
        "b/2.MOV",
        "b/1.webm",
        "b/c/x.avi",
        "a.mkv",
        "notes.txt",
        "b.csv",
        ".hidden.mp4",
        "._a.mp4",
        ".git/x.mp4",
    )
    refs = list(list_videos(tmp_path))
    assert [ref.video_id for ref in refs] == ["a", "b/1", "b/2", "b/c/x", "z"]
    assert [ref.uri for ref in refs][2] == str(tmp_path / "b" / "2.MOV")
    assert [ref.size_bytes for ref in refs] == [5, 8, 7, 9, 5]
    assert ids(tmp_path, max_videos=2) == ["a", "b/1"]
    assert ids(f"{tmp_path}/") == ids(tmp_path)


def test_extensions_stay_where_ids_would_collide(tmp_path):
    make(tmp_path, "a.mp4", "a.mov", "a.b.mp4", "a.mp4.mov", "c.mp4", "d/a.mp4", "d/a.b.avi")
    assert ids(tmp_path) == ["a.b", "a.mov", "a.mp4", "a.mp4.mov", "c", "d/a.b", "d/a"]


def test_folders_of_pictures_are_videos(tmp_path):
    make(tmp_path, "bear/0.jpg", "bear/1.jpg", "cat/0.png", "cat/clip.mp4", "dog.mp4", "dog/0.jpg", "cow.mp4", "cow/notes.txt")
    refs = {ref.video_id: ref for ref in list_videos(tmp_path)}
    # beside a video pictures are thumbnails; "dog" is taken by a folder of pictures, "cow" is not
    assert list(refs) == ["bear", "cat/clip", "cow", "dog", "dog.mp4"]
    assert refs["bear"].uri == str(tmp_path / "bear") and refs["bear"].size_bytes == 20
    assert ids(tmp_path / "bear") == ["bear"]
    make(tmp_path, "bear/bear/0.jpg")
    assert ids(tmp_path / "bear") == ["bear", "./bear"]


def test_globs(tmp_path):
    make(tmp_path, "x/a.mp4", "x/b.mp4", "y/a.mp4", "y/b.txt", "y/c.png", "y/frames/0.jpg", "w[1].mp4", "w1.mp4")
    assert ids(tmp_path / "*" / "a.mp4") == ["x/a", "y/a"]
    assert ids(tmp_path / "x" / "?.mp4") == ["a", "b"]
    assert ids(tmp_path / "y" / "*") == ["a", "c", "frames"]
    assert ids(tmp_path / "**" / "*.mp4") == ["w1", "w[1]", "x/a", "x/b", "y/a"]
    assert ids(tmp_path / "w[1].mp4") == ["w[1]"]  # a file of that very name comes first
    assert ids(f"{tmp_path}/**") == ["w1", "w[1]", "x/a", "x/b", "y/a", "y/frames"]


@pytest.fixture
def bucket():
    fs = fsspec.filesystem("memory")
    for name in ("top.mp4", "in/a.mp4", "in/deep/b.webm", "frames/0.jpg", "frames/1.jpg", "notes.txt"):
        fs.pipe_file(f"/bucket/{name}", name.encode())
    yield fs
    fs.rm("/bucket", recursive=True)


def test_remote_prefixes_and_globs(bucket):
    refs = list(list_videos("memory://bucket"))
    assert [ref.video_id for ref in refs] == ["frames", "in/a", "in/deep/b", "top"]
    assert [ref.size_bytes for ref in refs] == [24, 8, 14, 7]
    for ref in refs:
        assert ref.uri.startswith("memory://")
    assert bucket.cat_file(refs[1].uri) == b"in/a.mp4"
    assert ids("memory://bucket/*/*.mp4") == ["in/a"]
    assert ids("memory://bucket/top.mp4") == ["top"]
    bucket.pipe_file("/bucket/new.mp4", b"later")
    assert "new" in ids("memory://bucket")


def test_s3(s3_url):
    fs, path = fsspec.url_to_fs(s3_url)
    for name in ("b.mp4", "x/a.mp4", "frames/0.jpg"):
        fs.pipe_file(f"{path}/{name}", name.encode())
    refs = list(list_videos(s3_url))
    assert [ref.video_id for ref in refs] == ["b", "frames", "x/a"]
    assert refs[2].uri == f"{s3_url}/x/a.mp4" and refs[2].size_bytes == 7
    assert ids(f"{s3_url}/x/*.mp4") == ["a"]
    with pytest.raises(ConfigError, match=r"absent.*no such file"):
        list_videos(f"{s3_url}/absent")


def test_text_lists(tmp_path):
    make(tmp_path, "clips/a.mp4")
    other = "s3://bucket/deep/b.mp4"
    (tmp_path / "list.txt").write_text(f"# a comment\n\nclips/a.mp4\n{other}\n{tmp_path}/c.mov\n./x/../d.mp4\n", "utf-8-sig")
    refs = list(list_videos(tmp_path / "list.txt"))
    assert [(ref.video_id, ref.uri) for ref in refs] == [
        ("clips/a", str(tmp_path / "clips" / "a.mp4")),
        ("bucket/deep/b", other),
        ("c", str(tmp_path / "c.mov")),
        ("d", str(tmp_path / "d.mp4")),
    ]
    assert ids(tmp_path / "list.txt", max_videos=1) == ["clips/a"]


def test_tables_of_videos(tmp_path):
    (tmp_path / "list.csv").write_text('note,uri,video_id\nx,a.mp4,first\n"two\nlines",b.mp4,\n')
    assert ids(tmp_path / "list.csv") == ["first", "b"]
    pq.write_table(pa.table({"video": ["a.mp4", "a.mov"], "other": [1, 2]}), tmp_path / "plain.parquet")
    assert ids(tmp_path / "plain.parquet") == ["a.mp4", "a.mov"]
    pq.write_table(pa.table({"url": ["s3://b/a.mp4"], "video_id": [7]}), tmp_path / "ids.parquet")
    assert [(ref.video_id, ref.uri) for ref in list_videos(tmp_path / "ids.parquet")] == [("7", "s3://b/a.mp4")]


def test_remote_lists(bucket):
    bucket.pipe_file("/bucket/list.txt", b"in/a.mp4\nmemory://bucket/top.mp4\n")
    refs = list(list_videos("memory://bucket/list.txt"))
    assert [(ref.video_id, ref.uri) for ref in refs] == [
        ("in/a", "memory://bucket/in/a.mp4"),
        ("top", "memory://bucket/top.mp4"),
    ]


LISTS = {
    "same.txt": ("a.mp4\nb.mp4\na.mp4\n", r"same\.txt: lines 1 and 3 are both video 'a\.mp4', expected one"),
    "ids.csv": ("url,video_id\na.mp4,v\nb.mp4,v\n", r"ids\.csv: lines 2 and 3 are both video 'v'"),
    "columns.csv": ("path,id\na.mp4,1\n", r"columns\.csv: has the columns path, id, expected one of url, uri, video"),
    "blank.csv": ("url,video_id\na.mp4,x\n,y\n", r"blank\.csv, line 3: column url holds '', expected a path or URL"),
    "short.csv": ("id,url\n1\n", r"short\.csv, line 2: column url holds None"),
    "text.parquet": ("a.mp4\n", r"text\.parquet: not readable as a list of videos"),
    "empty.txt": ("# nothing\n", r"empty\.txt: no video found"),
    "broken.tar": ("no tar", r"broken\.tar: cannot be read as a tar"),
}


@pytest.mark.parametrize("name", LISTS)
def test_malformed_lists(tmp_path, name):
    text, message = LISTS[name]
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=message):
        list_videos(tmp_path / name)


def test_latin_1_is_reported(tmp_path):
    (tmp_path / "list.txt").write_bytes("café.mp4\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"list\.txt: not readable as a list of videos"):
        list_videos(tmp_path / "list.txt")


def write_tar(path, members):
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def test_tars_are_listed_and_their_videos_open(tmp_path):
    clip = videos.write_video(tmp_path / "source.mp4", videos.moving_shapes(5)).read_bytes()
    write_tar(tmp_path / "shard.tar", {"./b/two.mp4": clip, "one.mp4": clip, "one.json": b"{}", "._one.mp4": b"x"})
    refs = list(list_videos(tmp_path / "shard.tar"))
    assert [(ref.video_id, ref.size_bytes) for ref in refs] == [("b/two", len(clip)), ("one", len(clip))]
    assert refs[1].uri == f"tar://one.mp4::{tmp_path}/shard.tar"
    for ref in refs:
        with open_video(ref.uri, threads=1) as video:
            assert len(list(video)) == 5


def test_tars_in_remote_folders(bucket, tmp_path):
    clip = videos.write_video(tmp_path / "source.mp4", videos.moving_shapes(5)).read_bytes()
    write_tar(tmp_path / "s.tar", {"a.mp4": clip})
    for name in ("shards/s0.tar", "shards/s1.tar", "shards/s1/a.mp4"):
        bucket.pipe_file(f"/bucket/{name}", (tmp_path / "s.tar").read_bytes())
    assert ids("memory://bucket/shards/*.tar") == ["s0/a", "s1/a"]
    refs = list(list_videos("memory://bucket/shards"))
    assert [ref.video_id for ref in refs] == ["s0/a", "s1/a", "s1.tar/a"]
    with open_video(refs[0].uri, threads=1) as video:
        assert len(list(video)) == 5


def test_input_that_is_not_there_or_holds_nothing(tmp_path):
    (tmp_path / "empty").mkdir()
    make(tmp_path, "texts/a.txt")
    for source in ("absent", "absent.mp4", "absent/*.mp4"):
        with pytest.raises(ConfigError, match=rf"INPUT {tmp_path}/absent.*no"):
            list_videos(tmp_path / source)
    for source in ("empty", "texts", "texts/*"):
        with pytest.raises(ConfigError, match=r"no video found, expected files ending in .*\.mp4"):
            list_videos(tmp_path / source)
    with pytest.raises(ConfigError, match="nosuch"):
        list_videos("nosuch://bucket")
    with pytest.raises(ConfigError, match="max_videos is 0, expected 1 or more"):
        list_videos(tmp_path, max_videos=0)
