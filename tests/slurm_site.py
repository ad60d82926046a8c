"""A real Slurm on loopback: munged, slurmctld and slurmd of its own, without a system service.

A test module that imports the fixture ``slurm`` has a site of its own: folder, key, ports, cluster.
Two nodes, n1 and n2, are two slurmd on this machine. Their four cores each are told, not counted:
a job of a test mostly waits. All daemons end with the module, whatever the tests did.
"""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")
os.environ["PATH"] += ":/usr/sbin:/sbin"  # where the daemons lie; not on everybody's path
START_S = 30
NODES = ("n1", "n2")
CPUS = 4
# Slurm's own waits are made short, all else is as it comes: no accounting, no cgroups.
# high preempts low at once, and requeues its jobs; graceful gives them five seconds first.
CONFIG = """\
ClusterName={name}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge/socket,cred_expire=5
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0,bf_interval=2
KillWait=5
MinJobAge=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[0]} CPUs={cpus}
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs={cpus}
PartitionName=low Nodes=ALL Default=YES State=UP PriorityTier=1
PartitionName=graceful Nodes=ALL State=UP PriorityTier=1 GraceTime=5
PartitionName=high Nodes=ALL State=UP PriorityTier=2
"""


class SlurmSite:
    """A running site.

    Attributes: root (folder with logs), env (what a program needs to find it), nodes, cpus (each).
    """

    nodes, cpus = NODES, CPUS

    def __init__(self) -> None:
        # Not pytest's folder: munged, another user, cannot enter it.
        self.root = Path(tempfile.mkdtemp(prefix="slurm_site_"))
        self.env = {"SLURM_CONF": str(self.root / "slurm.conf")}
        self._daemons: dict[str, subprocess.Popen] = {}

    def start(self) -> None:
        """Start all daemons and wait until the nodes take jobs.

        Raises:
            RuntimeError: They do not.
        """
        self.root.chmod(0o755)
        for name in ("munge", "state", "spool"):
            (self.root / name).mkdir()
        key = self.root / "munge" / "key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        for path in (self.root / "munge", key):
            shutil.chown(path, "munge", "munge")
        port, *ports = find_free_ports(1 + len(NODES))
        name = f"sv{secrets.token_hex(4)}"
        text = CONFIG.format(
            name=name, host=socket.gethostname().split(".")[0], root=self.root, port=port,
            ports=ports, cpus=CPUS,
        )  # fmt: skip
        (self.root / "slurm.conf").write_text(text)
        munge = self.root / "munge"
        files = ("socket", "key-file", "log-file", "pid-file", "seed-file")
        options = [f"--{word}={munge / word.removesuffix('-file')}" for word in files]
        self._start("munged", ["munged", "--foreground", *options], user="munge", group="munge")
        self._wait_for("munged's socket", (munge / "socket").exists)
        self.start_controller()
        for node in NODES:
            self._start(node, ["slurmd", "-D", "-N", node])
        self._wait_for("idle nodes", lambda: self.states() == {"idle"})

    def start_controller(self) -> None:
        """Start slurmctld, again after `stop_controller`."""
        self._start("slurmctld", ["slurmctld", "-D"])

    def stop_controller(self) -> None:
        """End slurmctld: squeue and the like fail, running jobs go on."""
        self._end(["slurmctld"])

    def states(self) -> set[str]:
        """Give the states of the nodes; empty without a controller."""
        return set(self.run("sinfo", "-h", "-N", "-o", "%T", check=False).stdout.split())

    def run(self, *argv, check=True) -> subprocess.CompletedProcess:
        """Run a program of Slurm."""
        return subprocess.run(
            [str(word) for word in argv], env={**os.environ, **self.env}, capture_output=True,
            text=True, check=check, timeout=30,
        )  # fmt: skip

    def queue(self) -> list[str]:
        """Give the states of all jobs, one each, that have not ended."""
        return self.run("squeue", "-h", "-r", "-o", "%T").stdout.split()

    def stop(self) -> None:
        """End every daemon and every job."""
        if (self.root / "slurm.conf").exists() and "slurmctld" in self._daemons:
            self.run("scancel", "--signal=KILL", "--full", "--user=root", check=False)
        self._end(["slurmctld", *NODES, "munged"])
        # The daemon of a job (slurmstepd) survives slurmd; its command line names no folder.
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                mine = f"SLURM_CONF={self.root}".encode() in path.read_bytes()
                if mine and int(path.parent.name) != os.getpid():
                    os.kill(int(path.parent.name), signal.SIGKILL)
            except OSError:  # it has ended
                continue
        shutil.rmtree(self.root, ignore_errors=True)

    def _start(self, name: str, argv: list[str], **who: str) -> None:
        with open(self.root / f"{name}.out", "ab") as out:
            self._daemons[name] = subprocess.Popen(
                argv, env={**os.environ, **self.env}, stdin=subprocess.DEVNULL, stdout=out,
                stderr=out, start_new_session=True, cwd="/",
                **({**who, "extra_groups": []} if who else {}),
            )  # fmt: skip

    def _end(self, names: list[str]) -> None:
        found = [self._daemons.pop(name) for name in names if name in self._daemons]
        for process in found:
            process.terminate()
        for process in found:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _wait_for(self, what: str, condition) -> None:
        until = time.monotonic() + START_S
        while not condition():
            for name, process in self._daemons.items():
                if process.poll() is not None:
                    text = (self.root / f"{name}.out").read_text(errors="replace").strip()
                    raise RuntimeError(f"{name} ended: {text.splitlines()[-1] if text else ''}")
            if time.monotonic() > until:
                raise RuntimeError(f"no {what} after {START_S} s")
            time.sleep(0.1)


def find_free_ports(count: int) -> list[int]:
    """Give ports on which nobody listens; the kernel gives each only once in a while."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def find_obstacle() -> str | None:
    """Say why no site can be started here, or None."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"{missing[0]} is not installed: apt-get install slurm-wlm munge"
    if os.geteuid() != 0:
        return "only root can start slurmd and another user's munged"
    try:
        pwd.getpwnam("munge")
    except KeyError:
        return "there is no user munge"
    return None


@pytest.fixture(scope="module")
def slurm():
    """Give the module a running Slurm with two nodes, or skip its tests with the reason."""
    obstacle = find_obstacle()
    if obstacle:
        pytest.skip(obstacle)
    site = SlurmSite()
    try:
        try:
            site.start()
        except (RuntimeError, OSError) as error:
            pytest.skip(f"Slurm does not start: {error}")
        yield site
    finally:
        site.stop()
