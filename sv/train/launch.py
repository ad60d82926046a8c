"""The processes of a training on this machine: torchrun's agent starts and watches them.

The torchrun program is not used: at a signal it waits 30 s and kills, whatever is being saved, and
its status is always 1. Here its agent runs in a thread; signals go to the processes, which save and
end by themselves, and the status is theirs.
"""

import contextlib
import ipaddress
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch.distributed as dist
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.elastic.rendezvous import (
    RendezvousInfo,
    RendezvousParameters,
    rendezvous_handler_registry,
)
from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import StaticTCPRendezvous
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from sv.errors import SvError, UsageError
from sv.train.group import LostProcess

MEET_S = 900  # the other nodes may still be starting
# Our errors are printed without their type.
OWN = (SvError.__name__, UsageError.__name__, LostProcess.__name__)
BACKEND = "bound"  # `BoundRendezvous` in torch's registry
FIRST_PORT, PORTS = 10_000, 20_000  # below Linux's own choice for outgoing connections (32768)


@dataclass(frozen=True)
class Meeting:
    """Where the nodes of a training meet, and which of them this is, from 0."""

    host: str
    port: int
    node: int
    nodes: int


def find_meeting(
    environ: Mapping[str, str], nodes: int, rdzv: str | None, node_rank: int
) -> Meeting:
    """Find where the nodes meet: on one node a free port, else ``rdzv`` or what Slurm says.

    Args:
        environ: Variables of this process; Slurm's are read.
        nodes: Nodes of the training.
        rdzv: ``host:port`` of the first node, None under Slurm.
        node_rank: Number of this node; not used under Slurm.

    Raises:
        UsageError: The options are wrong, or missing outside Slurm.
    """
    if nodes == 1:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return Meeting("127.0.0.1", probe.getsockname()[1], 0, 1)
    if rdzv:
        host, _, port = rdzv.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 2**16:
            raise UsageError(f"--rdzv must be host:port of the first node, not '{rdzv}'")
        if not 0 <= node_rank < nodes:
            raise UsageError(f"--node-rank must be 0 to {nodes - 1}, not {node_rank}")
        return Meeting(host.strip("[]"), int(port), node_rank, nodes)
    if "SLURM_NODEID" not in environ:
        raise UsageError(
            f"--nnodes {nodes}: not under Slurm here; start it on every node with --rdzv host:port "
            "of the first one and --node-rank 0, 1, ..."
        )
    given = environ.get("SLURM_STEP_NUM_NODES") or environ["SLURM_JOB_NUM_NODES"]
    if int(given) != nodes:
        raise UsageError(f"--nnodes {nodes}: Slurm has started this on {given}")
    first = find_first_node(environ.get("SLURM_STEP_NODELIST") or environ["SLURM_JOB_NODELIST"])
    # From the job's number: the same on all its nodes, another one for each job of a node.
    port = FIRST_PORT + int(environ["SLURM_JOB_ID"]) % PORTS
    return Meeting(resolve_node(first), port, int(environ["SLURM_NODEID"]), nodes)


def find_first_node(nodes: str) -> str:
    """Return the first name of Slurm's list: ``n[01-04,7],m2`` -> ``n01``."""
    head = re.match(r"([^\[,]+)(?:\[(\d+)(?:[^\d\]][^\]]*)?\])?([^,\[]*)", nodes)
    if head is None:
        raise SvError(f"not a list of Slurm's nodes: '{nodes}'")
    return "".join(part or "" for part in head.groups())


def resolve_node(name: str) -> str:
    """Return the address of a node: Slurm's where the name service does not know the name.

    Raises:
        SvError: Slurm does not know it either.
    """
    with contextlib.suppress(OSError):
        return socket.gethostbyname(name)
    shown = subprocess.run(
        ["scontrol", "show", "node", name], capture_output=True, text=True, check=False
    ).stdout
    found = re.search(r"\bNodeAddr=(\S+)", shown)
    if found is None:
        raise SvError(f"no address of node {name}, neither from the name service nor from Slurm")
    return socket.gethostbyname(found[1])


class BoundRendezvous(StaticTCPRendezvous):
    """torch's static rendezvous, with a store that listens on the one address that is needed.

    torch's own listens on all of them, also where all processes are of this machine.
    """

    def get_backend(self) -> str:
        """Return its name in torch's registry."""
        return BACKEND

    def next_rendezvous(self) -> RendezvousInfo:
        """Open the store on the first node, connect to it on the others."""
        if self.rank == 0 and not self._store:
            self._store = dist.TCPStore(
                self.master_addr, self.master_port, self.world_size, True, self.timeout,
                multi_tenant=True, master_listen_fd=self._listen().detach(),
            )  # fmt: skip
        return super().next_rendezvous()

    def _listen(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.master_addr else socket.AF_INET
        with contextlib.suppress(OSError):  # not an address of this machine: behind a translation
            server = socket.create_server((self.master_addr, self.master_port), family=family)
            # A machine may call itself 127.0.1.1 by a name that means another address elsewhere.
            if (
                self.world_size == 1
                or not ipaddress.ip_address(server.getsockname()[0]).is_loopback
            ):
                return server
            server.close()
        return socket.create_server(("", self.master_port), family=family)


def _create_rendezvous(params: RendezvousParameters) -> BoundRendezvous:
    host, _, port = params.endpoint.rpartition(":")
    return BoundRendezvous(
        host, int(port), params.config["rank"], params.max_nodes, params.run_id,
        params.config["timeout"],
    )  # fmt: skip


def run_processes(
    command: Sequence[str], processes: int, meeting: Meeting
) -> tuple[int, str | None]:
    """Run this node's processes of a training to their end; call it from the main thread.

    Args:
        command: Arguments of this Python interpreter, ``-m sv.bin.train ...``.
        processes: Their number on this node.
        meeting: Where the nodes meet.

    Returns:
        The exit status, and the message of the failure unless the process has printed it.

    Raises:
        SvError: The nodes did not meet.
    """
    rendezvous_handler_registry.register(BACKEND, _create_rendezvous)
    logging.disable(logging.CRITICAL)  # the agent's view of failures; `_explain` has them
    with contextlib.suppress(ValueError):  # a name, not an address
        if ipaddress.ip_address(meeting.host).is_loopback:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    # The agent runs in a thread, because a signal's handler runs in the main one.
    with tempfile.TemporaryDirectory(prefix="sv_train_") as folder, ThreadPoolExecutor(1) as pool:
        config = LaunchConfig(
            min_nodes=meeting.nodes,
            max_nodes=meeting.nodes,
            nproc_per_node=processes,
            run_id="training",
            rdzv_backend=BACKEND,
            rdzv_endpoint=f"{meeting.host}:{meeting.port}",
            rdzv_configs={"rank": meeting.node, "timeout": MEET_S},
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )

        _forward_signals()
        try:
            pool.submit(elastic_launch(config, sys.executable), *command).result()
        except ChildFailedError as error:
            return _explain(error.failures, processes * meeting.nodes)
        except dist.DistError as error:
            where = f"{meeting.host}:{meeting.port}"
            what = str(error).strip().splitlines()[0]
            raise SvError(f"the {meeting.nodes} nodes did not meet at {where} ({what})") from error
    return 0, None


def _forward_signals() -> None:
    def forward(number: int, frame: object) -> None:
        lists = Path("/proc/self/task").glob("*/children")  # started by any thread
        running = [int(pid) for path in lists for pid in path.read_text().split()]
        if not running:  # the other nodes have not connected yet
            print(f"stopped by {signal.Signals(number).name}", file=sys.stderr, flush=True)
            os._exit(128 + number)
        request = signal.SIGTERM if number == signal.SIGHUP else number
        for pid in running:
            with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
                os.kill(pid, request)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup sets it
            signal.signal(number, forward)


def _explain(failures: Mapping[int, ProcessFailure], processes: int) -> tuple[int, str | None]:
    """Choose the failure that was the cause, and describe it."""
    _, rank, failure = min((_rank_cause(f), rank, f) for rank, f in failures.items())
    where = f"process {rank} of {processes} on {socket.gethostname()}"
    kind, text = _get_error(failure)
    if kind == UsageError.__name__:
        return 2, text  # a wrong config is that of every process
    if text:
        return max(1, failure.exitcode), f"{where}: {text}"
    if failure.exitcode > 0:
        return failure.exitcode, None
    name = signal.Signals(-failure.exitcode).name
    advice = "the same command resumes from the last checkpoint"
    return 128 - failure.exitcode, f"{where} was ended by {name}; {advice}"


def _rank_cause(failure: ProcessFailure) -> int:
    """Rank a failure by how likely it caused the others; 0 is the likeliest."""
    kind, _ = _get_error(failure)
    if kind is not None:
        return 4 if kind == LostProcess.__name__ else 0
    if failure.exitcode > 0:
        return 1
    # When one has failed, the agent ends those that are left.
    return 3 if failure.exitcode == -signal.SIGTERM else 2


def _get_error(failure: ProcessFailure) -> tuple[str | None, str | None]:
    """Return the type of the error that ended a process and its text, if it reported one."""
    if not isinstance(failure.message, dict):  # torch's own message
        return None, None
    kind, _, text = str(failure.message["message"]).partition(": ")
    return kind, text if kind in OWN else f"{kind}: {text}"
