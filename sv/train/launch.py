"""The processes of a training on this machine: torchrun's agent starts and watches them.

torchrun as a program would not do: told to end, it waits 30 s and kills, whatever is being saved,
and its status is always 1. Here its agent runs in a thread; signals go to the processes, which save
and end by themselves, and the status is theirs.
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
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch.distributed as dist
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from sv.errors import SvError, UsageError
from sv.train.group import LostProcess

MEET_S = 900  # the other nodes may still be starting
OWN = (SvError.__name__, UsageError.__name__, LostProcess.__name__)  # are said without their type
FIRST_PORT, PORTS = 10_000, 20_000  # below Linux's own choice for outgoing connections (32768)


@dataclass(frozen=True)
class Meeting:
    """Where the nodes of a training meet, and which of them this is, from 0."""

    host: str
    port: int
    node: int
    nodes: int


@dataclass(frozen=True)
class Outcome:
    """How the processes of this node ended; ``message`` is None if they have said it themselves."""

    status: int
    message: str | None


def find_meeting(
    environ: Mapping[str, str], nodes: int, rdzv: str | None, node_rank: int
) -> Meeting:
    """Find where the nodes meet: on one node a free port, else what is given or Slurm says.

    Args:
        environ: Of this process; Slurm's variables are looked at.
        nodes: Nodes of the training.
        rdzv: ``host:port`` of the first node, None under Slurm.
        node_rank: Number of this node; under Slurm not used.

    Raises:
        UsageError: It is not known.
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
    # Of the job's number: known to all its nodes, and another one for each job of a node.
    port = FIRST_PORT + int(environ["SLURM_JOB_ID"]) % PORTS
    return Meeting(resolve_node(first), port, int(environ["SLURM_NODEID"]), nodes)


def find_first_node(nodes: str) -> str:
    """Give the first name of Slurm's list: ``n[01-04,7],m2`` -> ``n01``."""
    head = re.match(r"([^\[,]+)(?:\[(\d+)[^\]]*\])?([^,\[]*)", nodes)
    if head is None:
        raise SvError(f"not a list of Slurm's nodes: '{nodes}'")
    return "".join(part or "" for part in head.groups())


def resolve_node(name: str) -> str:
    """Give the address of a node: Slurm's own where the name is known to Slurm alone.

    Raises:
        SvError: Neither knows it.
    """
    with contextlib.suppress(OSError):
        return socket.gethostbyname(name)
    said = subprocess.run(
        ["scontrol", "show", "node", name], capture_output=True, text=True, check=False
    ).stdout
    found = re.search(r"\bNodeAddr=(\S+)", said)
    if found is None:
        raise SvError(f"no address of node {name}, neither from the name service nor from Slurm")
    return socket.gethostbyname(found[1])


def run_processes(command: Sequence[str], processes: int, meeting: Meeting) -> Outcome:
    """Run a training's processes of this node to their end; call it from the main thread.

    Args:
        command: Arguments of the Python that runs now, ``-m sv.bin.train ...``.
        processes: On this node.
        meeting: Where the nodes meet.

    Raises:
        SvError: The nodes did not meet.
    """
    logging.disable(logging.CRITICAL)  # what the agent has to say of failures is said here
    if is_loopback(meeting.host):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    ended: list[BaseException | None] = []
    with tempfile.TemporaryDirectory(prefix="sv_train_") as folder:
        config = LaunchConfig(
            min_nodes=meeting.nodes,
            max_nodes=meeting.nodes,
            nproc_per_node=processes,
            run_id="training",
            rdzv_backend="static",
            rdzv_endpoint=f"{meeting.host}:{meeting.port}",
            rdzv_configs={"rank": meeting.node, "timeout": MEET_S},
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )

        def launch() -> None:
            try:
                elastic_launch(config, sys.executable)(*command)
                ended.append(None)
            except BaseException as error:  # noqa: BLE001 - looked at below
                ended.append(error)

        agent = threading.Thread(target=launch, name="agent", daemon=True)
        _forward_signals()
        agent.start()
        while agent.is_alive():
            agent.join(0.2)
    (error,) = ended
    if isinstance(error, ChildFailedError):
        return _explain(error.failures, processes * meeting.nodes)
    if isinstance(error, dist.DistError):
        where = f"{meeting.host}:{meeting.port}"
        what = str(error).strip().splitlines()[0]
        raise SvError(f"the {meeting.nodes} nodes did not meet at {where} ({what})") from error
    if error is not None:
        raise error
    return Outcome(0, None)


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own; of a name nobody knows."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def _forward_signals() -> None:
    def forward(number: int, frame: object) -> None:
        running = find_children()
        if not running:  # the other nodes have not come yet
            print(f"stopped by {signal.Signals(number).name}", file=sys.stderr, flush=True)
            os._exit(128 + number)
        wish = signal.SIGTERM if number == signal.SIGHUP else number
        for pid in running:
            with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
                os.kill(pid, wish)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup's wish
            signal.signal(number, forward)


def find_children() -> list[int]:
    """Give the processes that any thread of this process has started."""
    lists = Path("/proc/self/task").glob("*/children")
    return [int(pid) for path in lists for pid in path.read_text().split()]


def _explain(failures: Mapping[int, ProcessFailure], processes: int) -> Outcome:
    """Choose the failure that was the cause, and say it."""
    rank, failure = min(failures.items(), key=lambda item: (_rank_cause(item[1]), item[0]))
    where = f"process {rank} of {processes} on {socket.gethostname()}"
    kind, text = _get_words(failure)
    if kind == UsageError.__name__:
        return Outcome(2, text)  # a wrong config is every process's
    if text:
        return Outcome(max(1, failure.exitcode), f"{where}: {text}")
    if failure.exitcode > 0:
        return Outcome(failure.exitcode, None)
    message = (
        f"{where} was ended by {signal.Signals(-failure.exitcode).name}; "
        "the same command goes on from the last checkpoint"
    )
    return Outcome(128 - failure.exitcode, message)


def _rank_cause(failure: ProcessFailure) -> int:
    """Rank what is said of a process by how likely it is the cause of the others' end."""
    kind, _ = _get_words(failure)
    if kind is not None:
        return 4 if kind == LostProcess.__name__ else 0
    if failure.exitcode > 0:
        return 1
    # Who is left when one has failed is ended by the agent.
    return 3 if failure.exitcode == -signal.SIGTERM else 2


def _get_words(failure: ProcessFailure) -> tuple[str | None, str | None]:
    """Give the type of the error that ended a process and its text, if it has said one."""
    if not isinstance(failure.message, dict):  # torch's own words
        return None, None
    kind, _, text = str(failure.message["message"]).partition(": ")
    return kind, text if kind in OWN else f"{kind}: {text}"
