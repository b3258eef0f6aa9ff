"""Reviewing over HTTP: order, filters, verdicts in the table, undo, and several people at once."""

import numpy as np
import pytest
from mask_forms import disc, write_tables
from serve.conftest import HEIGHT, WIDTH

from sam2_pipeline.config import JobConfig
from sam2_pipeline.io.dataset import MaskletDataset
from sam2_pipeline.masklets.rle import Rle, decode
from sam2_pipeline.masklets.verdict import Judgement
from sam2_pipeline.serve.review import SCORES, doubt
from sam2_pipeline.serve.serving import open_site


class Page:
    def __init__(self, client):
        self.client = client

    def list(self, **wanted):
        answer = self.client.get("/api/review/masklets", params=wanted)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, what, **body):
        answer = self.client.post(f"/api/review/{what}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def say(self, video, masklet, verdict, seen=None, **more):
        return self.post("verdict", video=video, masklet=masklet, verdict=verdict, seen=seen, **more)


@pytest.fixture
def page(review, client):
    return Page(client(review()))


def test_doubt_grows_where_scores_fall():
    old = {"predicted_iou_mean": 0.9, "stability_score_mean": 0.9, "stability_score_min": 0.9}
    row = {"visible_frame_count": 3, **old, "cycle_iou": None, "reprompt_iou": None, "verdict": None, "verdict_reasons": None}
    assert doubt(row) == pytest.approx(0.1)
    assert doubt(row | {"stability_score_min": 0.3}) == pytest.approx(0.3)
    assert doubt(row | {"cycle_iou": 0.2, "reprompt_iou": 0.1}) == pytest.approx(0.4)
    assert doubt(row | dict.fromkeys(old)) == 0.5
    assert doubt(row | {"visible_frame_count": 0}) == 1


def test_what_the_judge_says_comes_before_the_scores():
    sure = {"visible_frame_count": 3, **dict.fromkeys(SCORES, 0.9), "verdict": None, "verdict_reasons": None}
    unsure = sure | dict.fromkeys(SCORES, 0.1)
    order = [row | {"verdict": verdict} for verdict in ("accept", "refine", "reject") for row in (sure, unsure)]
    doubts = [doubt(row) for row in order]
    assert doubts == sorted(doubts) and (doubts[0], doubts[-1]) == pytest.approx((0.1 / 3, 2.9 / 3), abs=1e-6)


def test_the_list_begins_with_what_the_judge_rejected(clip, client, tmp_path):
    masks = {n: {f: disc(30 + n, 30, 6, (HEIGHT, WIDTH)) for f in range(3)} for n in range(3)}
    judged = {
        0: Judgement(0.9, 0.9, "accept"),
        1: Judgement(0.1, 0.9, "reject", ("cycle_iou",)),
        2: Judgement(0.9, 0.5, "refine"),
    }
    place = write_tables(tmp_path / "judged", {"clip": masks}, "auto", facts={"uri": str(clip)}, judgements=judged)
    rows = Page(client(open_site(place, None, JobConfig(), "rev"))).list()["rows"]
    assert [(row["masklet_id"], row["verdict"]) for row in rows] == [(1, "reject"), (2, "refine"), (0, "accept")]
    assert rows[0]["verdict_reasons"] == ["cycle_iou"] and rows[0]["cycle_iou"] == 0.1


def test_the_list(page):
    found = page.list(order="video")
    assert found["total"] == 20 and found["counts"] == {"accept": 0, "reject": 0, "refine": 0, "none": 20, "all": 20}
    keys = [(row["video_id"], row["masklet_id"]) for row in found["rows"]]
    assert keys == [(video, number) for video in ("clip", "gone") for number in range(10)]
    pages = [page.list(start=start, count=7)["rows"] for start in (0, 7, 14)]
    assert sorted((row["video_id"], row["masklet_id"]) for rows in pages for row in rows) == keys
    by_doubt = [row["doubt"] for row in page.list()["rows"]]
    assert by_doubt == sorted(by_doubt, reverse=True)
    assert page.list(video="gone")["total"] == page.list(search="GON")["total"] == 10
    assert page.list(bucket="large")["total"] == page.list(kind="prompted")["total"] == 0


def test_a_masklet_in_pieces(page, tables):
    dataset = MaskletDataset(tables)
    track = page.client.get("/api/review/track", params={"video": "clip", "masklet": 2}).json()
    assert track["frames"] == [0, 2, 4, 6, 8, 10]
    pieces = {}
    for start in (0, 5):
        asked = {"video": "clip", "masklet": 2, "start": start, "stop": start + 5}
        pieces |= page.client.get("/api/review/masks", params=asked).json()["frames"]
    masks = np.stack([decode(Rle.from_coco(pieces[str(f)]["2"])) for f in (0, 2, 4, 6, 8)])
    assert (masks == dataset.masks("clip", 2, decode=True)[:5]).all()
    everyone = page.client.get("/api/review/masks", params={"video": "clip", "masklet": 2, "start": 0, "stop": 1, "others": True})
    assert set(everyone.json()["frames"]["0"]) == {str(number) for number in range(10)}


def test_verdicts_reach_the_table(page, tables):
    page.say("clip", 3, "accept", note="clean")
    page.say("gone", 0, "reject")
    assert page.list(review="accept")["total"] == 1 and page.list(review="none")["total"] == 18
    rows = MaskletDataset(tables).masklets(reviewed=True).to_pylist()
    assert {(r["video_id"], r["masklet_id"]): (r["review"], r["reviewed_by"], r["review_note"]) for r in rows if r["review"]} == {
        ("clip", 3): ("accept", "rev", "clean"),
        ("gone", 0): ("reject", "rev", None),
    }


def test_undo_also_after_a_restart(page, review, client, tables):
    page.say("clip", 1, "accept")
    page.say("clip", 1, "reject")
    page.say("clip", 2, "refine")
    again = Page(client(review()))
    assert again.post("undo")["review"] is None
    assert again.post("undo")["review"]["verdict"] == "accept", "the verdict before counts again"
    assert again.post("undo")["review"] is None
    assert again.client.post("/api/review/undo", json={}).status_code == 400
    assert MaskletDataset(tables).verdicts().num_rows == 0
    assert MaskletDataset(tables).verdicts(history=True).num_rows == 6, "the history keeps everything"
    again.say("clip", 1, "refine")
    assert again.post("undo")["review"] is None


def test_two_reviewers(review, client):
    ann, bob = Page(client(review("ann"))), Page(client(review("bob")))
    first = ann.say("clip", 0, "accept")
    assert first["replaced"] is None
    answer = bob.say("clip", 0, "reject")
    assert answer["replaced"]["author"] == "ann", "the last writer is told"
    assert ann.list(video="clip", review="reject")["total"] == 1, "and the other sees it"
    assert bob.say("clip", 0, "refine", seen=answer["review"]["verdict_id"])["replaced"] is None
    assert ann.client.post("/api/review/undo", json={}).status_code == 400, "hers does not count any more"
    assert bob.post("undo")["review"]["verdict"] == "reject"
    assert bob.post("undo")["review"]["author"] == "ann", "hers counts again"
    assert ann.post("undo")["review"] is None


def test_what_is_not_there(page):
    for path, asked in (
        ("review/track", {"video": "clip", "masklet": 99}),
        ("review/masks", {"video": "nowhere", "masklet": 0, "start": 0, "stop": 9}),
        ("frame", {"video": "nowhere", "frame": 0}),
        ("frame", {"video": "clip", "frame": 999}),
    ):
        answer = page.client.get(f"/api/{path}", params=asked)
        assert answer.status_code == 404 and answer.json()["error"], path
    gone = page.client.get("/api/frame", params={"video": "gone", "frame": 0})
    assert gone.status_code == 422 and "gone.mp4" in gone.json()["error"]


def test_before_anything_is_annotated(annotate, client):
    connected = client(annotate())
    assert connected.get("/api/info").json()["masklets"] == 0
    assert connected.get("/api/review/masklets").status_code == 404


def test_frames(page):
    answer = page.client.get("/api/frame", params={"video": "clip", "frame": 3, "width": 64})
    assert answer.headers["content-type"] == "image/jpeg" and answer.content[:2] == b"\xff\xd8"
    assert len(page.client.get("/api/frame", params={"video": "clip", "frame": 3}).content) > len(answer.content)
