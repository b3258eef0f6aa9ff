"""Who is let in, and what no request can do: leave the root, crash the server, or be anybody else's."""

import asyncio
import socket
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sam2_pipeline.config import JobConfig
from sam2_pipeline.errors import ConfigError, VideoError
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.masklets.work import VideoRef
from sam2_pipeline.serve.frames import FrameStore
from sam2_pipeline.serve.guard import MAX_BODY, Access, Guard
from sam2_pipeline.serve.serving import Options, alone, open_site, serve

JSON = {"content-type": "application/json"}
POSTS = ["annotate/prompt", "annotate/adopt", "annotate/remove-prompt", "annotate/add-object", "annotate/rename-object",
         "annotate/remove-object", "annotate/undo", "annotate/propagate", "annotate/cancel", "annotate/save",
         "review/verdict", "review/undo"]  # fmt: skip
GETS = ["info", "videos", "frame", "review/masklets", "review/track", "review/masks", "annotate/state", "annotate/masks",
        "annotate/progress", "annotate/export"]  # fmt: skip


@pytest.fixture
def connected(review, client):
    return client(review())


def test_only_under_its_own_names(connected):
    for host in ("127.0.0.1:8765", "localhost", "LOCALHOST:1", "[::1]:8765"):
        assert connected.get("/api/info", headers={"host": host}).status_code == 200
    for host in ("evil.example", "127.0.0.1.evil.example:8765", "10.0.0.1", "", "[", "a b"):
        answer = connected.get("/api/info", headers={"host": host})
        assert answer.status_code == 421 and "frame-ancestors 'none'" in answer.headers["content-security-policy"]


def test_no_other_site_can_ask(connected):
    ask = {"headers": {"origin": "http://evil.example"}}
    assert connected.post("/api/review/undo", json={}, **ask).status_code == 403
    assert connected.get("/api/info", headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert connected.get("/api/info", headers={"origin": "null"}).status_code == 403
    assert connected.post("/api/review/undo", data={"a": 1}).status_code == 415, "forms are no JSON"
    own = {"origin": "http://127.0.0.1:8765", "sec-fetch-site": "same-origin"}
    assert connected.get("/api/info", headers=own).status_code == 200
    assert "access-control-allow-origin" not in connected.get("/api/info", headers=own).headers


def test_the_token(review, client):
    site = replace(review(), access=Access.to("0.0.0.0", "s3cret", ["proxy.example"]))
    connected = client(site)
    for refused in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Bearer é".encode()}, {"cookie": "x=s3cret"}):
        assert connected.get("/api/info", headers=refused).status_code == 401
        assert connected.get("/static/main.js", headers=refused).status_code == 401
    assert connected.get("/api/info", headers={"authorization": "Bearer s3cret"}).status_code == 200
    assert connected.get("/?token=wrong", follow_redirects=False).status_code == 401
    entered = connected.get("/?token=s3cret", follow_redirects=False)
    assert entered.status_code == 303 and entered.headers["location"] == "/"
    assert "HttpOnly" in entered.headers["set-cookie"] and "SameSite=Strict" in entered.headers["set-cookie"]
    assert connected.get("/api/info").status_code == 200, "by the cookie"
    for host, status in (("10.1.2.3:8000", 200), ("proxy.example", 200), ("evil.example", 421)):
        assert connected.get("/api/info", headers={"host": host}).status_code == status


def test_beyond_loopback_there_is_a_token(review, monkeypatch):
    said = []
    monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: said.append(self.config.app))
    for host in ("127.0.0.1", "0.0.0.0"):
        serve(review(), Options(host, 0), said.append)
    assert "token=" not in said[0] and "token=" in said[3]


def test_addresses_that_cannot_be_had(review):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match=r"cannot listen on 127\.0\.0\.1 port"):
            serve(review(), Options(port=taken.getsockname()[1]))
    with pytest.raises(ConfigError, match="cannot listen"):
        serve(review(), Options(port=99999))


def test_one_server_annotates_at_a_time(tmp_path):
    annotated = Storage(tmp_path)
    with alone(annotated), pytest.raises(ConfigError, match="another `sam2-pipeline serve`"), alone(annotated):
        pass
    with alone(Storage(tmp_path)):
        pass


OUTSIDE = [
    "/../pyproject.toml",
    "/static/../guard.py",
    "/static/%2e%2e/app.py",
    "/static//etc/passwd",
    "/static/..%2f..%2fcli.py",
    "/static/",
    "/etc/passwd",
    "//etc/passwd",
    "/static/app.css/..",
    "/static/app.css%00.js",
]


@pytest.mark.parametrize("path", OUTSIDE)
def test_no_path_leads_outside(connected, path):
    request = connected.build_request("GET", "http://127.0.0.1:8765/")
    request.url = request.url.copy_with(raw_path=path.encode())
    assert connected.send(request).status_code == 404


def test_no_id_leads_outside(connected, tmp_path):
    (tmp_path / "secret.mp4").write_bytes(b"x")
    for name in ("../secret", "../secret.mp4", str(tmp_path / "secret.mp4"), "file:///etc/passwd", "clip/../../secret", "clip\0"):
        for path in ("frame", "annotate/state", "review/track", "annotate/export"):
            asked = {"video": name, "frame": 0, "masklet": 0, "format": "sav"}
            wanted = {"frame": ("video", "frame"), "review/track": ("video", "masklet"), "annotate/export": ("video", "format")}
            asked = {key: asked[key] for key in wanted.get(path, ("video",))}
            assert connected.get(f"/api/{path}", params=asked).status_code == 404


def test_bodies_that_are_too_large(connected):
    big = b'{"video": "' + b"x" * MAX_BODY + b'"}'
    assert connected.post("/api/annotate/prompt", content=big, headers=JSON).status_code == 413
    chunks = (b" " * (1 << 20) for _ in range(6))
    assert connected.post("/api/annotate/prompt", content=chunks, headers=JSON).status_code == 413, "without a length, too"
    assert connected.get("/api/info", params={"x": "y" * 10_000}).status_code == 414
    for length in ("-1", "9" * 400, "x"):
        answer = connected.post("/api/review/undo", content=b"{}", headers=JSON | {"content-length": length})
        assert answer.status_code == 413


def test_a_body_that_never_ends(monkeypatch):
    monkeypatch.setattr("sam2_pipeline.serve.guard.BODY_S", 0.01)
    sent = []

    async def receive():
        await asyncio.sleep(60)

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"",
             "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")]}  # fmt: skip
    asyncio.run(Guard(None, Access())(scope, receive, send))
    assert sent[0]["status"] == 408


@pytest.mark.parametrize("path", POSTS)
def test_garbage(connected, path):
    deep = b"[" * 200_000
    for body in (b"", b"{", b"null", b"[]", b'"x"', b"\xff\xfe", b'{"video": NaN}', deep, b'{"video":' + deep, b'{"\\ud800": 1}',
                 b'{"video": "clip", "version": 1e999}', b'{"video": "clip", "version": ' + b"9" * 5000 + b"}"):  # fmt: skip
        assert connected.post(f"/api/{path}", content=body, headers=JSON).status_code == 422, body[:30]
    assert connected.get(f"/api/{path}").status_code == 405
    assert connected.request("DELETE", f"/api/{path}").status_code == 405


NUMBERS = st.one_of(st.integers(-3, 40), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.just(2**31))
TEXTS = st.one_of(st.sampled_from(["clip", "gone", "accept", "", "sav", "doubt"]), st.text(max_size=8))
BOX = st.lists(st.floats(-5, 200), min_size=4, max_size=4)
RLES = st.fixed_dictionaries({"size": st.just([96, 128]), "counts": st.text("0123456789:;<=>?@ABCPPQ`o", max_size=12)})
ANY = st.recursive(st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS), lambda inner: st.lists(inner, max_size=3), max_leaves=5)
FIELDS = {
    "video": st.one_of(st.just("clip"), TEXTS),
    "version": st.one_of(st.just("now"), st.just("now"), NUMBERS),  # "now": as it is when the request is sent
    "object_id": st.one_of(st.just(1), NUMBERS),
    "frame": st.one_of(st.integers(0, 12), NUMBERS),
    "points": st.one_of(st.lists(st.lists(NUMBERS, min_size=2, max_size=2), max_size=3), ANY),
    "labels": st.one_of(st.lists(st.integers(0, 1), max_size=3), ANY),
    "box": st.one_of(BOX, ANY),
    "mask": st.one_of(RLES, ANY),
    "masklet": st.one_of(st.integers(0, 9), NUMBERS),
    "verdict": st.one_of(TEXTS, st.none()),
    "seen": st.one_of(TEXTS, st.none()),
    **dict.fromkeys(("note", "name", "tab"), TEXTS),
}
# what each endpoint asks for, so that most requests get past the first check
EDIT = ("video", "version")
NEEDS = {
    "annotate/prompt": (*EDIT, "object_id", "frame"),
    "annotate/adopt": (*EDIT, "masklet"),
    "annotate/remove-prompt": (*EDIT, "object_id", "frame"),
    "annotate/add-object": EDIT,
    "annotate/rename-object": (*EDIT, "object_id", "name"),
    "annotate/remove-object": (*EDIT, "object_id"),
    "annotate/undo": EDIT,
    "annotate/propagate": ("video",),
    "annotate/cancel": ("video",),
    "annotate/save": EDIT,
    "review/verdict": ("video", "masklet", "verdict"),
    "review/undo": (),
}
MAY = {
    "annotate/prompt": ("points", "labels", "box", "mask", "tab"),
    "annotate/add-object": ("name",),
    "annotate/adopt": ("frame",),
    "review/verdict": ("note", "seen"),
}


@st.composite
def requests(draw):
    path = draw(st.sampled_from(POSTS))
    needed = {name: draw(FIELDS[name]) for name in NEEDS[path]}
    more = draw(st.lists(st.sampled_from(MAY.get(path, ("note",))), max_size=3, unique=True)) if path in MAY else []
    return path, needed | {name: draw(FIELDS[name]) for name in more}


QUERY = st.dictionaries(
    st.sampled_from(["video", "frame", "width", "masklet", "start", "stop", "order", "count", "review", "format", "others", "x"]),
    st.one_of(st.sampled_from(["clip", "0", "5", "-1", "300", "true", "all", "prompts", "9" * 50]), st.text(max_size=6)),
    max_size=6,
)


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(posted=st.lists(requests(), max_size=12), got=st.lists(st.tuples(st.sampled_from(GETS), QUERY), max_size=6))
def test_no_request_is_a_bug(connected, posted, got):
    """Whatever is asked, the answer is a result or a reason, and the server goes on."""
    for path, body in posted:
        if body.get("version") == "now":
            body["version"] = connected.get("/api/annotate/progress", params={"video": "clip"}).json()["version"]
        answer = connected.post(f"/api/{path}", json=body)
        assert answer.status_code in (200, 400, 404, 409, 422), (path, body, answer.text)
        assert answer.status_code == 200 or answer.json()["error"]
    for path, query in got:
        answer = connected.get(f"/api/{path}", params=query)
        assert answer.status_code in (200, 400, 404, 422), (path, query, answer.text)
    assert connected.get("/api/annotate/state", params={"video": "clip"}).status_code == 200


def test_places_for_annotations(tables, clip, tmp_path, review):
    assert review().annotator.output.url == f"{tables}-annotations"
    other = open_site(str(clip), None, JobConfig(), "a")
    assert other.annotator.output.url == str(clip.parent / "clip-masklets")
    with pytest.raises(ConfigError, match="was not written by a run"):
        (tmp_path / "taken" / "masks").mkdir(parents=True)
        (tmp_path / "taken" / "masks" / "x.parquet").write_bytes(b"")
        open_site(str(clip), str(tmp_path / "taken"), JobConfig(), "a")


def test_addresses_in_tables_are_not_trusted():
    store = FrameStore({"x": VideoRef("x", "ftp://evil.example/x.mp4")}, lambda uri: {})
    with pytest.raises(VideoError, match="its scheme is 'ftp'"):
        store.jpeg("x", 0, 320)
