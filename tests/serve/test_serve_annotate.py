"""Annotating over HTTP: clicks, boxes and brushes become masks, masks become masklets in tables, and no click is lost."""

import json
import threading
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
from serve.conftest import FRAMES, HEIGHT, WIDTH, square

from sam2_pipeline.io.dataset import MaskletDataset
from sam2_pipeline.io.prompts_table import check_prompts, read_prompts
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.io.verify import verify_output
from sam2_pipeline.masklets.rle import Rle, decode, encode
from sam2_pipeline.pipeline.runfile import require_run
from sam2_pipeline.pipeline.summary import read_status
from sam2_pipeline.serve.session import MAX_OBJECTS

VIDEO = "clip"


class Tab:
    """A browser tab, which knows a version."""

    def __init__(self, client, name="a"):
        self.client, self.name, self.version = client, name, 0
        self.version = self.get("state")["version"]

    def get(self, what, **more):
        answer = self.client.get(f"/api/annotate/{what}", params={"video": VIDEO, **more})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def try_post(self, what, **more):
        return self.client.post(f"/api/annotate/{what}", json={"video": VIDEO, **more})

    def edit(self, what, **more):
        answer = self.try_post(what, version=self.version, tab=self.name, **more)
        assert answer.status_code == 200, answer.text
        self.version = answer.json()["version"]
        return answer.json()

    def add(self):
        return self.edit("add-object")["object_id"]

    def click(self, number, t, object_id, label=1, offset=10):
        x, y = square(number, t)
        return self.edit("prompt", object_id=object_id, frame=t, points=[[x + offset, y + offset]], labels=[label])

    def propagate(self):
        assert self.try_post("propagate").status_code == 200
        return self.wait()

    def wait(self):
        end = time.monotonic() + 20
        while (job := self.get("progress")["job"])["state"] == "running":
            assert time.monotonic() < end
            time.sleep(0.01)
        return job

    def masks(self, t):
        found = self.get("masks", start=t, stop=t + 1)["frames"][str(t)]
        return {int(number): decode(Rle.from_coco(mask)) for number, mask in found.items()}

    def save(self):
        answer = self.try_post("save", version=self.version)
        assert answer.status_code == 200, answer.text
        return answer.json()


def is_square(mask, number, t):
    """Whether a mask is about this square; compression blurs its edges."""
    x, y = square(number, t)
    true = np.zeros_like(mask)
    true[y : y + 20, x : x + 20] = True
    return (mask & true).sum() > 0.8 * (mask | true).sum()


def test_from_click_to_tables(annotate, client, tmp_path):
    tab = Tab(client(annotate()))
    first = tab.add()
    answer = tab.click(0, 0, first)
    assert is_square(decode(Rle.from_coco(answer["mask"])), 0, 0)
    x, y = square(1, 3)
    second = tab.add()
    tab.edit("prompt", object_id=second, frame=3, box=[x - 4, y - 4, x + 24, y + 24])
    assert tab.try_post("save", version=tab.version).status_code == 400, "nothing is propagated yet"
    assert tab.propagate() == {"state": "done", "done": FRAMES, "total": FRAMES, "message": ""}
    for t in (0, 5, FRAMES - 1):
        assert is_square(tab.masks(t)[first], 0, t) and is_square(tab.masks(t)[second], 1, t)
    assert tab.save()["saved"] == 2

    output = tmp_path / "annotated"
    dataset = MaskletDataset(output)
    rows = dataset.masklets(VIDEO).to_pylist()
    kinds = [(row["masklet_id"], row["object_id"], row["masklet_type"], row["prompt_frame_index"]) for row in rows]
    assert kinds == [(0, first, "prompted", 0), (1, second, "prompted", 3)]
    assert rows[1]["prompt_box"] == [x - 4, y - 4, x + 24, y + 24]
    assert dataset.masks(VIDEO).num_rows == 2 * FRAMES
    assert is_square(dataset.masks(VIDEO, 1, decode=True)[7], 1, 7)
    [video] = dataset.videos().to_pylist()
    assert (video["status"], video["model"], video["width"], video["annotated_frame_count"]) == ("ok", "by-colour", WIDTH, FRAMES)
    assert verify_output(Storage(output)) == []
    status = read_status(Storage(output), {})
    assert (status.done, status.left, status.failed) == (1, 0, 0)
    assert require_run(Storage(output))["annotated"] == {}


def test_the_prompts_table_is_one_that_a_run_takes(annotate, client, tmp_path):
    tab = Tab(client(annotate()))
    one = tab.add()
    tab.click(0, 0, one)
    tab.click(1, 4, one, label=0)
    tab.propagate()
    tab.save()
    [part] = (tmp_path / "annotated" / "prompts").iterdir()
    rows = read_prompts(str(part))
    assert check_prompts(rows, {VIDEO: (WIDTH, HEIGHT, FRAMES)}) == []
    assert [(row.video_id, row.prompt.object_id, row.prompt.frame_index) for row in rows] == [(VIDEO, one, 0), (VIDEO, one, 4)]
    lines = tab.client.get("/api/annotate/export", params={"video": VIDEO, "format": "prompts"}).text.splitlines()
    exported = tmp_path / "prompts.jsonl"
    exported.write_text("\n".join(lines))
    assert [row.prompt.points_xy.tolist() for row in read_prompts(str(exported))] == [r.prompt.points_xy.tolist() for r in rows]
    assert MaskletDataset(tmp_path / "annotated").prompts(VIDEO)["labels"].to_pylist() == [[1], [0]]


def test_corrections_replace_what_was_saved(annotate, client, tmp_path):
    tab = Tab(client(annotate()))
    one = tab.add()
    x, y = square(1, 0)
    tab.edit("prompt", object_id=one, frame=0, points=[[square(0, 0)[0] + 9, 15], [x + 9, y + 9]], labels=[1, 1])
    tab.propagate()
    tab.save()
    before = MaskletDataset(tmp_path / "annotated").masks(VIDEO, 0, decode=True)
    mask = decode(Rle.from_coco(tab.click(1, 6, one, label=0)["mask"]))
    assert is_square(mask, 0, 6), "what was tracked, less what was clicked away, at once"
    state = tab.get("state")
    assert state["objects"][0]["stale"] and state["objects"][0]["tracked"]
    assert tab.try_post("save", version=tab.version).status_code == 400
    tab.propagate()
    tab.save()
    dataset = MaskletDataset(tmp_path / "annotated")
    after = dataset.masks(VIDEO, 0, decode=True)
    assert (after[:6] == before[:6]).all() and (after[6:].sum((1, 2)) < before[6:].sum((1, 2))).all()
    for table in ("videos", "masklets", "masks", "prompts"):
        assert len(list((tmp_path / "annotated" / table).glob("*.parquet"))) == 1, "what was replaced is gone"
        assert pq.read_table(tmp_path / "annotated" / table).num_rows
    assert verify_output(Storage(tmp_path / "annotated")) == []
    assert dataset.prompts(VIDEO).num_rows == 2


def test_only_what_changed_is_tracked_again(annotate, client, model):
    tab = Tab(client(annotate()))
    one, two = tab.add(), tab.add()
    tab.click(0, 0, one)
    tab.click(1, 0, two)
    tab.propagate()
    tab.click(2, 5, two)
    state = {item["id"]: item["stale"] for item in tab.get("state")["objects"]}
    assert state == {one: False, two: True}
    seen = []
    real = model.propagate
    model.propagate = lambda video, prompts: seen.append({prompt.object_id for prompt in prompts}) or real(video, prompts)
    tab.propagate()
    assert seen == [{two}]
    assert not any(item["stale"] for item in tab.get("state")["objects"])


def test_objects_that_compete_are_tracked_together(annotate, client):
    tab = Tab(client(annotate("tracking.non_overlapping=true")))
    one, two = tab.add(), tab.add()
    tab.click(0, 0, one)
    tab.click(1, 0, two)
    tab.propagate()
    assert not any(item["stale"] for item in tab.get("state")["objects"])
    tab.edit("remove-object", object_id=two)
    assert tab.get("state")["objects"][0]["stale"], "nobody takes its pixels any more"


def test_a_brushed_mask(annotate, client):
    tab = Tab(client(annotate()))
    one = tab.add()
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[10:30, 40:50] = True
    answer = tab.edit("prompt", object_id=one, frame=2, mask=encode(mask).to_coco())
    assert (decode(Rle.from_coco(answer["mask"])) == mask).all()
    assert answer["objects"][0]["prompts"] == [{"frame": 2, "points": [], "labels": [], "box": None, "mask": True}]


def test_nothing_is_lost_in_a_restart(annotate, client, model, tmp_path):
    tab = Tab(client(annotate()))
    one, two = tab.add(), tab.add()
    tab.click(0, 0, one)
    tab.click(1, 2, two)
    tab.edit("rename-object", object_id=two, name="the green one")
    again = Tab(client(annotate()))
    state = again.get("state")
    assert [(item["id"], item["name"], len(item["prompts"])) for item in state["objects"]] == [
        (one, "Object 1", 1),
        (two, "the green one", 1),
    ]
    assert is_square(again.masks(2)[two], 1, 2), "the mask of a click is made anew"
    again.edit("undo")
    again.edit("undo")
    assert [item["prompts"] for item in again.get("state")["objects"]][1] == []
    again.propagate() and again.click(1, 2, two)
    again.propagate()
    again.save()
    calls = len(model.calls)
    third = Tab(client(annotate()))
    assert not any(item["stale"] for item in third.get("state")["objects"]), "saved masks are taken up again"
    assert is_square(third.masks(7)[one], 0, 7) and len(model.calls) == calls
    for path in (tmp_path / "annotated" / "_serve" / "sessions").iterdir():
        path.unlink()
    fourth = Tab(client(annotate()))
    assert [item["name"] for item in fourth.get("state")["objects"]] == ["Object 1", "Object 2"], "from the tables alone"
    assert is_square(fourth.masks(7)[two], 1, 7)


def test_undo_goes_back_step_by_step(annotate, client):
    tab = Tab(client(annotate()))
    one = tab.add()
    tab.click(0, 0, one)
    x, y = square(0, 0)
    tab.edit("prompt", object_id=one, frame=0, points=[[x + 9, y + 9], [x + 5, y + 5]], labels=[1, 1])
    tab.edit("remove-object", object_id=one)
    assert tab.get("state")["objects"] == []
    back = tab.edit("undo")
    assert (back["object_id"], back["frame"]) == (one, 0) and len(back["objects"][0]["prompts"][0]["points"]) == 2
    assert len(tab.edit("undo")["objects"][0]["prompts"][0]["points"]) == 1
    assert tab.edit("undo")["objects"][0]["prompts"] == []
    assert tab.edit("undo")["objects"] == []
    assert tab.try_post("undo", version=tab.version).status_code == 400


def test_two_tabs(annotate, client):
    site = client(annotate())
    left, right = Tab(site, "left"), Tab(site, "right")
    one = left.add()
    late = right.try_post("add-object", version=right.version, tab="right")
    assert late.status_code == 409 and "another tab" in late.json()["error"]
    assert [item["id"] for item in late.json()["state"]["objects"]] == [one], "the answer says how things are"
    assert right.get("progress")["tab"] == "left"
    right.version = late.json()["state"]["version"]
    assert right.add() == 2
    assert left.try_post("remove-object", version=left.version, object_id=one).status_code == 409

    answers = []
    edit = {"object_id": one, "frame": 0, "labels": [1], "version": right.version}
    threads = [
        threading.Thread(target=lambda x=x: answers.append(right.try_post("prompt", points=[[x, 15]], **edit).status_code))
        for x in range(10, 18)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200] + [409] * 7, "of eight at once one wins, and the others are told"


def test_a_click_does_not_wait_for_propagation(annotate, client, model):
    gate = threading.Event()
    real = model.propagate

    def slowly(video, prompts):
        for frame in real(video, prompts):
            yield frame
            gate.wait(0.1)

    model.propagate = slowly
    tab = Tab(client(annotate()))
    one, two = tab.add(), tab.add()
    tab.click(0, 0, one)
    assert tab.try_post("propagate").status_code == 200
    assert tab.try_post("propagate").status_code == 409
    mask = decode(Rle.from_coco(tab.click(1, 0, two)["mask"]))
    assert is_square(mask, 1, 0) and tab.get("progress")["job"]["state"] == "running"
    assert tab.try_post("cancel").json()["job"]["state"] == "cancelled"
    state = tab.get("state")
    assert not state["objects"][0]["tracked"], "half a track is none"
    gate.set()
    assert tab.propagate()["state"] == "done"


def test_a_failing_model_fails_one_propagation(annotate, client, model):
    real, model.propagate = model.propagate, lambda video, prompts: iter([1 // 0])
    tab = Tab(client(annotate()))
    tab.click(0, 0, tab.add())
    assert tab.try_post("propagate").status_code == 200
    assert tab.wait()["state"] == "failed" and "division" in tab.get("progress")["job"]["message"]
    model.propagate = real
    assert tab.propagate()["state"] == "done"


@pytest.mark.parametrize(
    "prompt, reason",
    [
        ({"points": [[WIDTH, 3]], "labels": [1]}, "outside"),
        ({"points": [[3, 3]], "labels": []}, "labels"),
        ({"points": [[3, 3]], "labels": [2]}, "labels"),
        ({"points": [[-1, 3]], "labels": [1]}, "points"),
        ({"box": [5, 5, 5, 9]}, "box"),
        ({"box": [5, 5, WIDTH + 1, 9]}, "outside"),
        ({"mask": encode(np.ones((4, 4), bool)).to_coco()}, "mask has"),
        ({"mask": {"size": [HEIGHT, WIDTH], "counts": "zz"}}, "RLE"),
        ({"mask": encode(np.zeros((HEIGHT, WIDTH), bool)).to_coco()}, "empty"),
        ({}, "neither"),
        ({"frame": FRAMES, "points": [[3, 3]], "labels": [1]}, "past the end"),
        ({"object_id": 9, "points": [[3, 3]], "labels": [1]}, "no object"),
    ],
)
def test_prompts_that_do_not_fit(annotate, client, prompt, reason):
    tab = Tab(client(annotate()))
    one = tab.add()
    answer = tab.try_post("prompt", **{"object_id": one, "frame": 0, "version": tab.version} | prompt)
    assert answer.status_code in (400, 404, 422) and reason in answer.json()["error"]
    assert tab.get("state")["version"] == tab.version


def test_objects_are_not_without_end(annotate, client):
    tab = Tab(client(annotate()))
    for _ in range(MAX_OBJECTS):
        tab.add()
    assert tab.try_post("add-object", version=tab.version).status_code == 400


def test_exports_of_saved_masklets(annotate, client):
    tab = Tab(client(annotate()))
    ask = {"video": VIDEO, "format": "coco"}
    assert tab.client.get("/api/annotate/export", params=ask).status_code == 400
    tab.click(0, 0, tab.add())
    tab.propagate()
    tab.save()
    coco = tab.client.get("/api/annotate/export", params=ask)
    assert len(coco.json()["annotations"]) == FRAMES
    assert coco.headers["content-disposition"] == 'attachment; filename="clip.coco.json"'
    sav = json.loads(tab.client.get("/api/annotate/export", params=ask | {"format": "sav"}).content)
    assert sav["masklet_num"] == 1 and len(sav["masklet"]) == FRAMES


def test_a_masklet_to_refine(review, client, tmp_path):
    tab = Tab(client(review()))
    answer = tab.edit("adopt", masklet=3)
    assert answer["objects"][0]["name"] == "Masklet 3" and answer["objects"][0]["prompts"][0]["mask"]
    dataset = MaskletDataset(tmp_path / "out")
    frames = dataset.masks(VIDEO, 3)["frame_index"].to_pylist()
    expected = dataset.masks(VIDEO, 3, decode=True)[frames.index(answer["frame"])]
    assert (tab.masks(answer["frame"])[answer["object_id"]] == expected).all()
    tab.propagate()
    tab.save()
    assert MaskletDataset(tmp_path / "out-annotations").masks(VIDEO).num_rows == FRAMES
    assert MaskletDataset(tmp_path / "out").masks(VIDEO).num_rows == 10 * FRAMES // 2, "the run's own tables stay as they are"
