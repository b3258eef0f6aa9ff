"""Ray as the engine: starts or joins it, and runs tasks on Ray Data's actor pool, one block per unit.

Ray decides who works on what and restarts workers that die. Frames and masks never travel: a task goes out as a few hundred
bytes, an outcome comes back.
"""

import contextlib
import logging
import math
import os
import pickle
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sam2_pipeline.config import JobConfig
from sam2_pipeline.errors import ConfigError, PipelineError
from sam2_pipeline.pipeline import interrupt
from sam2_pipeline.pipeline.actor import Outcome, Task
from sam2_pipeline.pipeline.factory import GeneratorFactory
from sam2_pipeline.pipeline.job import Job
from sam2_pipeline.pipeline.ray_worker import LEAVE_WITHIN_S, Board, RayUnitWorker

INIT_DEATHS = 20  # workers in a row that die while they load the model, before the run is given up
CALLS_AT_ONCE = 2  # per worker: one on the device, one being fetched


@dataclass(frozen=True, slots=True)
class Pool:
    """How many workers, what each may use, and on which kind of device."""

    workers: int
    gpus: float
    cpus: float
    threads: int
    device: str


def check_address(config: JobConfig) -> None:
    """Fail at once where nobody listens: Ray itself goes on trying for many minutes.

    Raises:
        ConfigError: the address of ``--ray`` or RAY_ADDRESS answers no connection.
    """
    address = _address(config)
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise ConfigError(f"--ray {address}: no Ray answers there ({error.strerror or error})") from None


def _address(config: JobConfig) -> str:
    return config.ray.address or os.environ.get("RAY_ADDRESS") or "local"


class Cluster:
    """A connection to Ray, for the time of a ``with`` block; a Ray that was started here is stopped at its end."""

    def __init__(self, config: JobConfig) -> None:
        self._config = config
        self._address = _address(config)
        self._board: Any = None

    def __enter__(self) -> "Cluster":
        # Ray's native part warns of Ray Data's own doings; both settings are only read when Ray starts in this process
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        if self._address != "local" and os.path.exists(os.path.expanduser("~/.ray/auth_token")):
            os.environ.setdefault("RAY_AUTH_MODE", "token")  # clusters ask for it by default, clients do not show it
        import ray

        quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False, "configure_logging": True}
        try:
            with _native_stderr_silenced(), _own_sigterm():
                if self._address == "local":
                    ray.init(address="local", include_dashboard=False, num_cpus=os.cpu_count(), **quiet)
                else:
                    ray.init(address=self._address, **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
            guarded = self._address != "local" and "RAY_AUTH_MODE" not in os.environ
            hint = "; does it ask for a token (RAY_AUTH_MODE=token)?" if guarded else ""
            raise PipelineError(f"--ray {self._address}: cannot start or join Ray: {reason}{hint}") from error
        return self

    def __exit__(self, *exception: object) -> None:
        import ray

        ray.shutdown()

    def pool(self) -> Pool:
        """Workers for this configuration on this cluster.

        Raises:
            ConfigError: a GPU is asked for, and the cluster has none.
        """
        import ray

        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus = int(sum(node.get("GPU", 0) for node in nodes))
        share = self._config.ray.gpus_per_worker
        device = self._config.model.device or ("cuda" if gpus or share else "cpu")
        if device.startswith("cuda"):
            if not gpus and not share:
                raise ConfigError(
                    f"model.device is {device!r}, but Ray sees no GPU; if the cluster is to start some, set ray.gpus_per_worker"
                )
            workers = self._config.ray.workers or max(int(gpus / share), 1) if share else self._config.ray.workers or gpus
            share = share or 1 / math.ceil(workers / gpus)
            cores = max(int(node.get("CPU", 1) // max(node.get("GPU", 0), 1)) for node in nodes)
            # Ray shows each worker its own GPU as number 0
            return Pool(workers, share, 0, max(cores, 1), "cuda")
        workers = self._config.ray.workers or 1
        smallest = min((int(node["CPU"]) for node in nodes if node.get("CPU")), default=1)
        cores = max(1, smallest // math.ceil(workers / max(len(nodes), 1)))
        return Pool(workers, 0, cores, cores, device)

    def progress(self) -> tuple[int, list[tuple[str, int, int | None]]]:
        """Frames done so far, and where each worker is; nothing new while the board cannot be reached."""
        import ray

        if self._board is None:
            return 0, []
        with contextlib.suppress(ray.exceptions.RayError):
            return ray.get(self._board.read.remote(), timeout=5)
        return 0, []

    def run(self, tasks: Sequence[Task], factory: GeneratorFactory, job: Job, pool: Pool) -> Iterator[Outcome]:
        """The outcome of each task, as they come in. A task whose worker died is given to another, without limit."""
        import ray
        import ray.data
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        self._board = ray.remote(Board).options(num_cpus=0, scheduling_strategy=here).remote()
        _hush("ray", "ray.data")
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        # both -1: one unit must not end the run; `run_job` compares what was planned with what was committed
        context.max_errored_blocks = -1
        context.execution_no_progress_timeout_s = -1
        context.max_consecutive_actor_init_deaths = INIT_DEATHS
        context.autoscaling_config.actor_pool_util_upscaling_threshold = 0.99  # of the calls at once; 1.75 is never reached
        most = min(pool.workers, len(tasks))
        calls = min(CALLS_AT_ONCE, math.ceil(len(tasks) / most))  # the first worker there must not take the others' units
        items = [{"task": pickle.dumps(task)} for task in tasks]
        dataset = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            RayUnitWorker,
            batch_size=1,
            num_gpus=pool.gpus or None,
            num_cpus=pool.cpus,
            compute=ray.data.ActorPoolStrategy(
                min_size=min(self._config.ray.min_workers or most, most),
                max_size=most,
                max_tasks_in_flight_per_actor=calls,
                max_concurrent_calls_per_actor=calls,
                enable_true_multi_threading=True,
            ),
            fn_constructor_kwargs={"factory": factory, "job": job, "threads": pool.threads, "board": self._board},
        )
        # units of one video have nothing to commit halfway
        halves = any(len(task.unit.videos) > 1 for task in tasks)
        try:
            with interrupt.farewell(self._dismiss) if halves else contextlib.nullcontext():
                for batch in dataset.iter_batches(batch_size=None, prefetch_batches=0):
                    for payload in batch["outcome"]:
                        yield pickle.loads(payload)
        except ray.exceptions.RayError as error:
            # a cluster without tokens cannot talk back to a driver that asks for them, which looks as if the driver had died
            cancelled = "cancelled before it started" in str(error) and os.environ.get("RAY_AUTH_MODE") == "token"
            hint = "; if this cluster asks for no token, set RAY_AUTH_MODE=disabled" if cancelled else ""
            raise PipelineError(f"Ray gave up: {_cause(error)}{hint}") from error

    def _dismiss(self) -> None:
        """Let the workers commit what they have, for as long as they may take."""
        import ray

        deadline = time.monotonic() + LEAVE_WITHIN_S
        with contextlib.suppress(ray.exceptions.RayError):
            while ray.get(self._board.close.remote(), timeout=5) and time.monotonic() < deadline:
                time.sleep(0.2)


def _hush(*loggers: str) -> None:
    """Keep Ray's own progress lines off the terminal; its log files keep them."""
    for name in loggers:
        for handler in logging.getLogger(name).handlers:
            if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
                handler.setLevel(logging.CRITICAL)


@contextlib.contextmanager
def _own_sigterm() -> Iterator[None]:
    """Ray puts a handler of its own in place, which ends the process at once: keep the caller's."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


@contextlib.contextmanager
def _native_stderr_silenced() -> Iterator[None]:
    """Drop what Ray's native part says while it starts; what matters, it raises."""
    sys.stderr.flush()
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


def _cause(error: BaseException) -> str:
    """The last line of Ray's report, which names the exception that its tracebacks lead to."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else repr(error)
