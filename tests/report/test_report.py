"""The page, the card and the overlay videos of a dataset: what they say is what the tables say."""

import re
from html.parser import HTMLParser

import av
import numpy as np
import pytest
from mask_forms import disc, write_palette, write_tables
from videos import write_video

from sam2_pipeline.cli import main
from sam2_pipeline.io.dataset import MaskletDataset
from sam2_pipeline.masklets.verdict import Judgement
from sam2_pipeline.report.card import card, statistics
from sam2_pipeline.report.facts import gather
from sam2_pipeline.report.plots import histogram
from sam2_pipeline.report.sheets import choose
from sam2_pipeline.report.timelines import timeline

FRAMES = range(0, 12, 4)
VIDEOS = {
    "a": {1: {f: disc(8, 8 + f, 5) for f in FRAMES}, 2: {f: disc(16, 24, 0 if f == 4 else 5) for f in FRAMES}},
    "b": {1: {f: disc(8, 8, 0 if f < 8 else 12) for f in FRAMES}},
}


@pytest.fixture
def output(tmp_path):
    """Two videos with masklets, and two that failed for the same reason."""
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        write_video(tmp_path / "in" / f"{name}.mp4", [np.full((24, 32, 3), 60 + 8 * t, np.uint8) for t in range(12)])
    facts = {
        "frame_count": 12,
        "duration_s": 0.5,
        "annotated_frame_count": 3,
        "model": "m",
        "device": "cpu",
        "package_version": "1",
    }
    places = {name: {"uri": str(tmp_path / "in" / f"{name}.mp4")} for name in ("a", "b")}
    return write_tables(tmp_path / "out", VIDEOS, "auto", failed=["<x>", "y"], facts=facts, facts_of=places)


class Reader(HTMLParser):
    """Tags, text, and every address that a browser would fetch."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.addresses, self.open = [], "", [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "xlink:href", "srcset", "data")]

    def handle_data(self, data):
        self.text += f" {data.strip()}"


def test_the_page(output, tmp_path, capsys):
    assert main(["report", output, "--quiet"]) == 0
    html = (tmp_path / "out" / "report.html").read_text()
    page = Reader(html)
    assert "3 masklets of 2 videos" in page.text and "made by m on cpu" in re.sub(r"\s+", " ", page.text)
    assert re.search(r"2 VideoError no frames", re.sub(r"\s+", " ", page.text)), "failures by reason"
    assert "<x>, y" in page.text, "names are text, not tags"
    # Nothing is fetched, nothing runs.
    assert all(address.startswith(("data:image/jpeg;base64,", "#")) for address in page.addresses)
    assert "script" not in page.tags and "link" not in page.tags and not re.search(r"@import|url\(http", html)
    assert page.tags.count("img") == 2 + 2 + 3 + 1, "two videos, and the frames that show each of three masklets"
    assert page.tags.count("svg") == 7
    assert "Verdicts" not in page.text, "nothing was judged"
    assert not re.search(r"#0(10203|40506|70809)", html), "plots have the page's colours"
    assert "could not be opened" not in page.text


def test_a_page_without_videos_at_hand(output, tmp_path):
    (tmp_path / "in" / "a.mp4").unlink()
    assert main(["report", output, "--page", str(tmp_path / "p.html"), "--card", str(tmp_path / "c.md"), "--quiet"]) == 0
    page = Reader((tmp_path / "p.html").read_text())
    assert "could not be opened for pictures" in page.text and page.tags.count("img") == 8
    assert (tmp_path / "c.md").exists() and not (tmp_path / "out" / "report.html").exists()
    assert main(["report", output, "--no-pictures", "--page", str(tmp_path / "p.html"), "--videos", "1", "--quiet"]) == 0
    page = Reader((tmp_path / "p.html").read_text())
    assert "img" not in page.tags and "1 more are not shown" in page.text


def test_an_output_in_which_everything_failed(tmp_path):
    output = write_tables(tmp_path / "out", {}, failed=["x"])
    assert main(["report", output, "--quiet"]) == 0
    assert "0 masklets of 0 videos" in (tmp_path / "out" / "report.html").read_text()


def test_figures(output):
    facts = gather(MaskletDataset(output))
    found = statistics(facts)
    assert (found["videos"], found["masklets"], found["masks"]) == ("2", "3 (3 auto)", "6")
    assert found["masklets a video, mean"] == "1.5"
    assert found["disappearance rate"] == "33.3%"  # of the three, one is hidden and comes back; one comes late
    assert found["annotated frames a second"] == "6.0" and found["seconds a video, mean"] == "0.5"
    assert found["visibility changes a masklet, mean"] == "0.7"  # of the three, one disappears and comes back
    assert found["seconds from a masklet's first mask to its last, mean"] == "0.2"  # 8, 8 and 0 of 24 frames a second
    assert found["sizes of masklets"] == "100% small, 0% medium, 0% large"
    small = [
        rle.area < 0.1 * 24 * 32 for video in VIDEOS.values() for masks in video.values() for rle in masks.values() if rle.area
    ]
    assert found["masks below a tenth of the picture"] == f"{np.mean(small):.1%}" == "83.3%"
    assert found["frames on which a masklet is visible, mean"] == "66.7%"
    (kind,) = facts.failures
    assert (kind.error_type, kind.message, kind.video_ids) == ("VideoError", "no frames", ("<x>", "y"))


def test_the_card(output):
    text = card(gather(MaskletDataset(output)))
    assert text.startswith("---\n") and "data_files: masks/*.parquet" in text
    assert "| disappearance rate | 33.3% | 27.7% (manual: 42.5%) |" in text
    assert "| 2 | VideoError | no frames |" in text
    assert "| `rle` | struct<size: list<element: int32>, counts: string> | COCO compressed RLE" in text


def test_verdicts(tmp_path):
    judgements = {0: Judgement(0.9, 0.8, "accept"), 1: Judgement(0.1, None, "reject", ("cycle_iou", "flicker"))}
    output = write_tables(tmp_path / "out", VIDEOS, "auto", judgements=judgements)
    facts = gather(MaskletDataset(output))
    assert statistics(facts)["verdicts"] == "2 accept, 1 reject"
    assert facts.verdicts["reject"] == {"": 1, "cycle_iou": 1, "flicker": 1}
    assert main(["report", output, "--quiet"]) == 0
    html = (tmp_path / "out" / "report.html").read_text()
    text = re.sub(r"\s+", " ", Reader(html).text)
    assert "accept 2 67% none" in text and "refine 0 0% none" in text and "reject 1 33% cycle_iou (1) flicker (1)" in text
    assert re.findall(r'<i class="(\w+)" style="flex: (\d+)">', html) == [("accept", "2"), ("reject", "1")], "shares in a bar"
    assert "reject (cycle_iou, flicker), predicted IoU 0.50" in text


def test_sheets(output):
    facts = gather(MaskletDataset(output))
    best, doubtful, worst = choose(facts, 6)
    picked = [(pick.video_id, pick.masklet_id) for sheet in (best, doubtful, worst) for pick in sheet.picks]
    assert len(set(picked)) == 3, "of three masklets each is on one sheet"


def test_sheets_without_scores(tmp_path):
    output = write_tables(tmp_path / "out", VIDEOS, "auto", score=float("nan"))
    (sheet,) = choose(gather(MaskletDataset(output)), 2)
    assert sheet.title == "Some masklets" and len(sheet.picks) == 2


def test_timelines(output):
    line = timeline(MaskletDataset(output), "a")
    assert line.duration_s == 0.5 and line.middle == 4
    spans = {one.masklet_id: [(round(s), round(n)) for s, n in one.spans] for one in line.lines}
    assert spans == {0: [(0, 33), (67, 33)], 1: [(0, 100)]}


@pytest.mark.parametrize("values", [[0.0], [3.0, 3.0], list(range(1000))])
def test_histograms_of_anything(values):
    for whole in (False, True):
        assert histogram(np.array(values, float), whole=whole).startswith("<svg")
    assert histogram(np.array(values, float)) == histogram(np.array(values, float)), "the same every time"


def frames_of(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)], container.streams.video[0].average_rate


def test_overlay_videos(output, tmp_path, capsys):
    assert main(["render", output, str(tmp_path / "overlays")]) == 0
    frames, rate = frames_of(tmp_path / "overlays" / "a.mp4")
    assert len(frames) == 3 and rate == 6 and frames[0].shape == (24, 32, 3)
    for frame in frames:
        coloured = np.ptp(frame.astype(int), axis=2) > 40  # the video itself is grey
        assert coloured.any() and not coloured[:2, 28:].any()
    assert (tmp_path / "overlays" / "b.mp4").exists()
    assert capsys.readouterr().out.count("(3 frames)") == 2


def test_overlays_beside_the_truth(output, tmp_path):
    write_palette(tmp_path / "truth", {"a": VIDEOS["a"]})
    command = ["render", output, str(tmp_path / "a.mp4"), "--video", "a", "--truth", str(tmp_path / "truth"), "--quiet"]
    assert main(command) == 0
    frames, _ = frames_of(tmp_path / "a.mp4")
    assert frames[0].shape == (24, 68, 3)


def test_what_cannot_be_rendered(output, tmp_path, capsys):
    assert main(["render", output, str(tmp_path / "one.mp4")]) == 2
    assert "one.mp4 is for one video, there are 2" in capsys.readouterr().err
    assert main(["render", output, str(tmp_path), "--video", "c"]) == 2
    assert "has no masklets of video 'c'" in capsys.readouterr().err
    assert main(["render", output, str(tmp_path), "--video", "a", "--masklet", "7"]) == 2
    assert "a has no masklet 7, expected some of 0, 1" in capsys.readouterr().err
    (tmp_path / "in" / "b.mp4").unlink()
    assert main(["render", output, str(tmp_path)]) == 3
    assert "not rendered: b:" in capsys.readouterr().err
