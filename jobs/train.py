"""Training on Ray Train: takes the arguments of `sam2-pipeline train`, and the number of workers.

    ray job submit --working-dir . -- python jobs/train.py --workers 8 --output /shared/out \\
        --config configs/train_synthetic.yaml --set optim.minutes=null

Every batch is shared by all workers, so the batch sizes must be multiples of their number, and results do not depend on it.
The output folder must be the same place on all machines. A run that lost a worker, or was killed, continues when it is
started again.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sam2_pipeline.training.settings import TrainConfig

ROOT = Path(__file__).parent.parent


def work(settings: dict) -> None:
    """One worker; Ray has made it a member of a ``torch.distributed`` group."""
    import ray.train.torch
    import torch

    from sam2_pipeline.training.show import announce, reporting
    from sam2_pipeline.training.trainer import train

    device = ray.train.torch.get_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    first = ray.train.get_context().get_world_rank() == 0
    if first:
        announce(settings["config"])
    with reporting(quiet=not first) as report:
        train(settings["config"], report)


def main() -> int:
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from sam2_pipeline.errors import ConfigError
    from sam2_pipeline.training.saving import WEIGHTS
    from sam2_pipeline.training.settings import TrainConfig
    from sam2_pipeline.training.trainer import check_workers

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", metavar="FILE", help="settings in YAML; see configs/train_synthetic.yaml")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="override one setting (repeatable)")
    parser.add_argument("--output", metavar="DIR", required=True, help="where checkpoints, log and weights go")
    parser.add_argument("--workers", metavar="N", type=int, default=1, help="how many, each with a GPU unless --cpu")
    parser.add_argument("--cpu", action="store_true", help="train on processors")
    parser.add_argument("--ray", metavar="ADDRESS", default="auto", help="local starts Ray here; default: the cluster")
    options = parser.parse_args()
    output = Path(options.output).expanduser().absolute()
    try:
        config = TrainConfig.load(options.config, [*options.set, f"run.output='{output}'"])
        config = from_here(config)
        check_workers(config, options.workers)
    except ConfigError as error:
        parser.error(str(error))
    # Ray Train's own print logs what it prints: every line of the progress would come twice.
    variables = {"PYTHONPATH": str(ROOT), "RAY_TRAIN_ENABLE_PRINT_PATCH": "0"}
    ray.init(address=options.ray, runtime_env={"env_vars": variables}, log_to_driver=True)
    trainer = TorchTrainer(
        work,
        train_loop_config={"config": config},
        scaling_config=ScalingConfig(num_workers=options.workers, use_gpu=not options.cpu),
        run_config=RunConfig(storage_path=str(output / "ray"), failure_config=FailureConfig(max_failures=3)),
    )
    trainer.fit()
    print(f"weights: {output / WEIGHTS}")
    return 0


def from_here(config: "TrainConfig") -> "TrainConfig":
    """The same with absolute paths: workers run in directories of their own."""
    from sam2_pipeline.training.settings import PRETRAINED

    def absolute(path: str | None) -> str | None:
        return path if path is None or "://" in path else str(Path(path).expanduser().absolute())

    def placed(data: dict[str, Any]) -> dict[str, Any]:
        return data | {name: absolute(data[name]) for name in ("root", "pictures") if name in data}

    weights = config.model.checkpoint
    if weights != PRETRAINED:
        weights = absolute(weights)
    model = replace(config.model, checkpoint=weights, teacher=absolute(config.model.teacher))
    data = replace(config.data, root=absolute(config.data.root), pictures=absolute(config.data.pictures))
    stages = tuple(stage | {"data": placed(stage["data"])} if stage.get("data") else stage for stage in config.stages)
    return replace(config, model=model, data=data, stages=stages)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # the working directory that was submitted comes first
    sys.exit(main())
