"""Verbs on models: scores, live streams, training, ONNX."""

from typing import Any

from sam2_pipeline.cli.shared import add_model, add_storage_option, add_verb
from sam2_pipeline.commands import live, models, onnx


def add_evaluate(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "evaluate",
        models.evaluate,
        "J, F and J&F of masklets, or of a model that is prompted, against true masks",
        """PREDICTIONS and GROUND_TRUTH are each a run's output, an SA-V JSON file or a folder of them, the JSON file of COCO or
YouTube-VIS, or a folder of PNGs: VIDEO/00000.png with object numbers as pixel values (DAVIS, MOSE), or VIDEO/000/00000.png
(SA-V). Videos go by their names.

As in the SA-V and DAVIS evaluators, the score of a set is the mean over its objects, and the first and the last true frame
do not count.

With --protocol there are no predictions: a model makes them, prompted with true masks. GROUND_TRUTH may then be `synthetic`, too:
scenes that no training uses. Protocols, for every object from the first frame on which it is visible:
  mask, box         its mask, or the box around it, on that frame: semi-supervised segmentation
  click, clicks-N   one click in its middle, or N, each after the first in the middle of the largest error
  offline           clicks there, then again and again on the frame with the worst mask of the whole video
  online            one pass: clicks wherever the IoU falls below 0.75
  automatic         no prompt: recall of the objects on the first frame, spurious masklets and duplicates, and what became of
                    objects that are late (see --set discover.every_s=0.5), and of shot changes (see --shots)

With --set judge.enabled=true the masklets of prompts on first frames, and automatic ones, get verdicts as in a run. Said is how
well these tell a mean IoU of 0.75 or more (of automatic masklets: with the true object that they fit best).

examples:
  sam2-pipeline evaluate masklets/ DAVIS/Annotations/480p
  sam2-pipeline evaluate predicted_pngs/ sav_val/Annotations_6fps --json scores.json
  sam2-pipeline evaluate masklets/ sav_train/ --sav manual --match hungarian
  sam2-pipeline evaluate synthetic --protocol click --protocol clicks-3 --protocol mask --clips 50
  sam2-pipeline evaluate DAVIS/Annotations/480p --protocol offline --model sam2.1_hiera_tiny
  sam2-pipeline evaluate synthetic --protocol automatic --shots 2 --set cuts.mode=split --set discover.every_s=0.25
  sam2-pipeline evaluate synthetic --protocol click --set judge.enabled=true --json verdicts.json

exit status: 0 all videos scored; 3 some could not be (they are listed); 2 nothing to compare; 1 a place cannot be read""",
        usage="%(prog)s PREDICTIONS GROUND_TRUTH [options]\n       %(prog)s GROUND_TRUTH --protocol NAME [options]",
    )
    parser.add_argument("predictions", metavar="PREDICTIONS", help="path or fsspec URL; left out with --protocol")
    parser.add_argument(
        "ground_truth", metavar="GROUND_TRUTH", nargs="?", help="path or fsspec URL, or with --protocol: synthetic"
    )
    parser.add_argument("--keep-first-and-last", action="store_true", default=None, help="count the first and last true frames")
    parser.add_argument("--sav", choices=["manual", "auto"], help="which of SA-V's files, where GROUND_TRUTH has both")
    parser.add_argument("--workers", metavar="N", type=int, help="processes; default: one per core, but one for a GPU")
    parser.add_argument("--json", metavar="FILE", help="write everything, each object's scores too")
    parser.add_argument("--quiet", action="store_true", help="no table")
    add_storage_option(parser)
    tables = parser.add_argument_group("with PREDICTIONS")
    tables.add_argument(
        "--match",
        choices=["ids", "hungarian", "greedy"],
        help="how to find an object's masklet: by its number (the default), or by mean IoU, best in sum or best first; "
        "by IoU all frames count, and there are recall and spurious masklets",
    )
    tables.add_argument("--common", action="store_true", help="leave aside videos that have no predictions")
    _add_protocols(parser.add_argument_group("with a model"))


def _add_protocols(group: Any) -> None:
    group.add_argument("--protocol", metavar="NAME", action="append", default=[], help="see below (repeatable)")
    add_model(group)
    group.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="a setting, as of generate, tracking or judge (repeatable)",
    )
    group.add_argument(
        "--clips", dest="num_clips", metavar="N", type=int, help="only N videos; default: all, or 50 synthetic ones"
    )
    group.add_argument(
        "--scene", metavar="KEY=VALUE", action="append", default=[], help="synthetic scenes: frames=48, size=[270,480]"
    )
    group.add_argument(
        "--shots",
        metavar="N",
        type=int,
        default=1,
        help="synthetic clips of N scenes, shot after shot; default: 1",
    )
    group.add_argument(
        "--dissolve",
        metavar="FRAMES",
        type=int,
        default=0,
        help="mix each shot into the next over so many frames; default: cuts",
    )
    group.add_argument(
        "--videos", metavar="URL", help="where the videos are, as VIDEO.mp4 or VIDEO/, if not beside the true masks"
    )
    group.add_argument("--min-area", metavar="SHARE", type=float, help="objects are visible from this share of the picture on; "
                       "default: 0.001 for synthetic scenes, else 0")  # fmt: skip
    group.add_argument(
        "--clicks-per-frame", dest="clicks", metavar="N", type=int, default=3, help="offline and online; default: 3"
    )
    group.add_argument("--max-frames", dest="frames", metavar="N", type=int, default=8,
                       help="frames with clicks, of each object, offline and online; default: 8")  # fmt: skip


def add_live(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "live",
        live.live,
        "segment a stream while it runs: a camera, RTSP, HTTP, a pipe, a file",
        """SOURCE is a camera (0, /dev/video0), a network stream (rtsp://, http://, rtmp://, srt://, ...), a video file, or - for
standard input. Prompts are for its first frame; those of --prompts, for theirs (frames count from 0, dropped ones too; a
prompt for a dropped frame counts on the next).

--masks writes a line of JSON for each frame: frame_index, timestamp_s, latency_s, and objects with object_id, rle, bbox, area,
predicted_iou, object_score.

examples:
  sam2-pipeline live rtsp://camera/1 --point 320,240 --output overlay.mp4 --model sam2.1_hiera_tiny
  sam2-pipeline live rtsp://camera/1 --auto --view
  sam2-pipeline live clip.mp4 --box 40,30,200,180 --box 300,50,380,160 --masks - --quiet | jq .objects[].area
  ffmpeg -f v4l2 -i /dev/video0 -f matroska - | sam2-pipeline live - --when-slow drop --auto --masks masks.jsonl

exit status: 0 the stream ended; 130 Ctrl-C; 1 it cannot be opened, or broke off; 2 bad usage. What was written is whole.""",
    )
    parser.add_argument("source", metavar="SOURCE", help="see below")
    what = parser.add_argument_group("what to track")
    what.add_argument("--point", dest="marks", metavar="X,Y", action="append", type=live.point, default=[],
                      help="an object, by a point on the first frame (repeatable)")  # fmt: skip
    what.add_argument("--box", dest="marks", metavar="X0,Y0,X1,Y1", action="append", type=live.box, default=[],
                      help="an object, by a box on the first frame (repeatable)")  # fmt: skip
    what.add_argument("--prompts", metavar="FILE", help="a table of prompts, as `run` takes it")
    what.add_argument("--auto", action="store_true", help="find objects on the first frame")
    out = parser.add_argument_group("where masks go")
    out.add_argument("--output", metavar="FILE.mp4", help="the frames with their masks")
    out.add_argument("--masks", metavar="FILE", help="masks as JSON lines; - for standard output")
    view = live.VIEW_PORT
    out.add_argument("--view", metavar="PORT", nargs="?", type=int, const=view,
                     help=f"watch it in a browser of this machine; default: {view}, 0 takes a free one")  # fmt: skip
    out.add_argument("--quiet", action="store_true", help="no progress, no summary")
    pace = parser.add_argument_group("pace")
    pace.add_argument("--when-slow", choices=["drop", "wait"],
                      help="frames that come too fast are dropped, or wait; default: drop those of cameras")  # fmt: skip
    pace.add_argument("--queue", metavar="N", type=int, default=1, help="how many frames may wait; default: 1, the latest wins")
    pace.add_argument("--realtime", action="store_true", help="a file plays at its own pace")
    pace.add_argument("--reconnect", metavar="SECONDS", type=float, default=0.0,
                      help="open a network stream again when it breaks off, until so long no frame came")  # fmt: skip
    pace.add_argument("--max-frames", metavar="N", type=int, help="end after N segmented frames")
    pace.add_argument("--source-option", metavar="K=V", action="append", default=[],
                      help="passed to FFmpeg, such as video_size=1280x720 (repeatable)")  # fmt: skip
    model = parser.add_argument_group("model")
    add_model(model)
    model.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="a setting of generate or tracking "
                       "(repeatable)")  # fmt: skip


def add_train(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "train",
        models.train,
        "train a model on synthetic scenes, SA-V or DAVIS-like folders, or on masklets",
        """Begins with the weights that the model comes with, unless model.checkpoint names others or is null (random ones).
Run again, it continues: whatever stopped it, it goes on from the last checkpoint. In the output folder: log.csv,
pictures/ of predictions, checkpoint.pt, and at the end weights.safetensors, for --checkpoint and load_model.

examples:
  sam2-pipeline train --config configs/train_synthetic.yaml --output training/
  sam2-pipeline train --config configs/fine_tune.yaml --output tuned/ --set data.kind=davis --set data.root=DAVIS
  sam2-pipeline train --output tuned/ --set data.kind=davis --set data.root=DAVIS --set model.name=sam2.1_hiera_tiny \\
      --set 'model.freeze=[image_encoder]' --set optim.lr=5e-6 --set optim.trunk_lr=3e-6

exit status: 0 trained to the end; 1 stopped (no disk, the loss is no number); 2 bad settings or data; 130 interrupted""",
        resumes=True,
    )
    parser.add_argument("--config", metavar="FILE", help="settings in YAML; see configs/train_synthetic.yaml")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="override one setting (repeatable)")
    parser.add_argument("--output", metavar="DIR", help="where checkpoints, log and weights go; default: run.output")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def add_export_onnx(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "export-onnx",
        onnx.export_onnx,
        "a model as ONNX files, for devices without PyTorch",
        """DEST receives image_encoder, mask_decoder, mask_prompt, memory_attention and memory_encoder. Numbers of pictures,
objects, prompts, points and memories may differ from call to call; the input size is fixed. Configuration, hash of the weights,
version and licence are in their metadata. `sam2_pipeline.onnx` runs them, pictures and videos, without PyTorch.

At the end both models are given the same prompts, and it is told how far their masks agree.

examples:
  sam2-pipeline export-onnx sam2.1_hiera_tiny exported/
  sam2-pipeline export-onnx trained/weights.safetensors exported/ --image-size 512
  sam2-pipeline export-onnx sam2_pipeline_small exported/ --checkpoint trained/weights.safetensors --precision int8

exit status: 0 exported; 2 bad usage, or weights that cannot be had""",
    )
    parser.add_argument("model", metavar="MODEL_OR_CHECKPOINT", help="a model's name, or a path or fsspec URL of weights")
    parser.add_argument("destination", metavar="DEST", help="a folder; files of an earlier export are replaced")
    parser.add_argument("--checkpoint", metavar="URL", help="weights of the named model: a path or fsspec URL")
    parser.add_argument("--image-size", metavar="N", type=int, help="side of the square that the model sees, a multiple of 32")
    parser.add_argument(
        "--precision",
        choices=["fp32", "fp16", "int8"],
        default="fp32",
        help="of weights and arithmetic; int8: linear layers only, not where it would hurt. Default: fp32",
    )
    parser.add_argument("--frames", metavar="N", type=int, default=8, help="compare on so many frames; default: 8, 0: do not")
    parser.add_argument("--quiet", action="store_true", help="print nothing")
