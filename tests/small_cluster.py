"""A real Ray cluster of several nodes on this machine, whose processes can be killed one by one."""

import contextlib
import os
import random
import signal
import socket
from collections.abc import Iterator
from pathlib import Path


class SmallCluster:
    """A head that works on nothing, and ``nodes`` more with one CPU each. Victims are chosen by ``seed``.

    With ``jobs``, it takes jobs at the address ``dashboard``.
    """

    def __init__(self, nodes: int = 2, seed: int = 0, *, jobs: bool = False) -> None:
        from ray.cluster_utils import Cluster

        self._random = random.Random(seed)
        head = {"num_cpus": 0, "include_dashboard": jobs}
        if jobs:
            port, agent = _free_ports(2)
            head |= {"dashboard_port": port, "dashboard_agent_listen_port": agent}
            self.dashboard = f"http://127.0.0.1:{port}"
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self._nodes = [self._cluster.add_node(num_cpus=1) for _ in range(nodes)]

    @property
    def address(self) -> str:
        return self._cluster.address

    def workers(self) -> list[int]:
        """Process ids of our unit workers that are alive."""
        raylets = {info.process.pid for node in self._nodes for info in node.all_processes.get("raylet", ())}
        return [pid for pid, parent, command in _processes() if parent in raylets and "RayUnitWorker" in command]

    def kill_worker(self) -> bool:
        """SIGKILL one worker; False if there is none just now."""
        if not (pids := self.workers()):
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._random.choice(pids), signal.SIGKILL)
        return True

    def replace_node(self) -> None:
        """SIGKILL a node with all that runs on it; another one joins."""
        victim = self._nodes.pop(self._random.randrange(len(self._nodes)))
        self._cluster.remove_node(victim, allow_graceful=False)
        self._nodes.append(self._cluster.add_node(num_cpus=1))

    def shutdown(self) -> None:
        self._cluster.shutdown()


@contextlib.contextmanager
def small_cluster(nodes: int = 2, seed: int = 0, *, jobs: bool = False) -> Iterator[SmallCluster]:
    before = signal.getsignal(signal.SIGTERM)  # Ray's nodes install a handler, and leave it
    cluster = SmallCluster(nodes, seed, jobs=jobs)
    try:
        yield cluster
    finally:
        cluster.shutdown()
        signal.signal(signal.SIGTERM, before)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _processes() -> Iterator[tuple[int, int, str]]:
    """(id, parent's id, command line) of every process."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                yield int(folder.name), parent, (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
