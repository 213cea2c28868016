"""Trainings over several hosts, made of this machine: the results of one host, the bytes that were planned, and what becomes of hosts and links
that fail.

    hosts_test.py LONGNET MPIRUN [unittest arguments]
"""

import contextlib
import os
import re
import shlex
import signal
import time
from pathlib import Path

from world import HERE, AmongHosts, missing
from harness import LONGNET, main, settings

SCRIPT = HERE.parent.parent / "launch/mpirun.sh"
EXACT = "training.precision=fp64"


class Hosts(AmongHosts):
    def setUp(self):
        super().setUp()
        reason = missing()
        if reason:
            self.skipTest(reason)

    def mpirun(self, slots, *assignments, options=""):
        """The command of a training on h1, h2, ... with so many ranks each, given on h1."""
        hostfile = self.folder / "hosts"
        hostfile.write_text("".join(f"h{number} slots={count}\n" for number, count in enumerate(slots, 1)))
        return (f"{HERE}/on_host.sh h1 env LONGNET={LONGNET} OMPI_MCA_plm_rsh_agent={HERE}/agent.sh OMPI_MCA_mpi_yield_when_idle=1 {options} {SCRIPT} "
                f"--hostfile {hostfile} {sum(slots)} train {self.config} {shlex.join(settings(EXACT, *assignments))}")

    def reference(self, *assignments, ranks=1):
        self.train(ranks, EXACT, *assignments, f"run={self.folder}/reference")

    # Results

    def test_the_losses_are_those_of_one_host(self):
        self.reference()
        for slots, keys, options in (([1, 1], [], ""), ([2, 2], [], ""), ([1, 1, 1, 1], [], ""), ([2, 1], [], ""),
                                     ([2, 2], ["parallel.sequence=2"], ""), ([2, 2], [], "OMPI_MCA_rmaps_base_mapping_policy=node")):
            with self.subTest(slots=slots, keys=keys, options=options):
                shell = self.world(len(slots))
                run = f"{'-'.join(map(str, slots))}{len(keys)}{len(options)}"
                self.done(shell, self.mpirun(slots, f"run={self.folder}/{run}", *keys, options=options))
                self.assert_same_losses(run, "reference")

    def received(self, shell, hosts):
        """Bytes that came to the hosts over their network so far."""
        count = "awk '$1 == \"eth0:\" {print $2}' /proc/thread-self/net/dev"
        return sum(int(self.done(shell, f"nsenter --net=/run/netns/h{host} {count}")) for host in range(1, hosts + 1))

    def test_the_bytes_between_hosts_are_those_that_were_planned(self):
        (self.folder / "text").write_text("a line of text, and another one\n" * 4000)
        size = ["model.width=64", "data.sequence_length=4096", "model.attention.segments=[1024, 4096]", "model.attention.rates=[1, 4]",
                "training.batch_size=2", "checkpoint.every_steps=0", "optimizer.schedule=constant"]
        for hosts in (2, 4):
            with self.subTest(hosts=hosts):
                shell, bytes_of = self.world(hosts), {}
                for steps in (2, 10):
                    before = self.received(shell, hosts)
                    self.done(shell, self.mpirun([1] * hosts, *size, f"training.steps={steps}", f"run={self.folder}/{hosts}-{steps}"))
                    bytes_of[steps] = self.received(shell, hosts) - before
                log = (self.folder / f"{hosts}-10/log.txt").read_text()
                weights = 8 * int(re.search(r"(\d+) parameters", log)[1])
                exchange = sum(line["exchange_bytes"] for line in self.metrics(f"{hosts}-10")[2:])
                # Each rank gets the others' parts of its part of the gradient, and then the others' weights.
                planned = exchange + 8 * 2 * (hosts - 1) * weights
                actual = bytes_of[10] - bytes_of[2]
                self.assertLess(abs(actual / planned - 1), 0.02, f"{actual} bytes, planned {planned}: exchange {exchange}")

    # Faults

    def endless(self, slots, *assignments, timeout=600):
        return self.mpirun(slots, "training.steps=120", "checkpoint.every_steps=5", "logging.every_steps=1000000", "optimizer.schedule=constant",
                           f"parallel.timeout_seconds={timeout}", *assignments)

    def begin(self, slots, timeout=600):
        """A world, and a training in it that has made some steps. Its output goes into a file."""
        self.train(sum(slots), EXACT, "training.steps=120", "checkpoint.every_steps=5", "optimizer.schedule=constant", f"run={self.folder}/reference")
        shell = self.world(len(slots))
        self.done(shell, f"({self.endless(slots, timeout=timeout)} >{self.folder}/out 2>&1; echo $? >{self.folder}/code) & true")
        self.until(lambda: (self.folder / "run/metrics.jsonl").exists() and len(self.metrics()) >= 20, lambda: f"no steps: {self.said()}")
        return shell

    def said(self):
        path = self.folder / "out"
        return path.read_text() if path.exists() else ""

    def ended(self, within):
        """The exit code."""
        code = self.folder / "code"
        self.until(lambda: code.exists() and code.read_text(), lambda: f"it does not end: {self.said()}", seconds=within)
        return int(code.read_text())

    def assert_goes_on(self, shell, slots):
        """As though nothing had happened."""
        self.until(lambda: not self.ranks(), "ranks are left", seconds=15)
        self.done(shell, self.endless(slots))
        self.assert_same_shards("run", "reference")
        self.assertEqual([(line["step"], line["loss"]) for line in self.metrics()], [(line["step"], line["loss"]) for line in self.metrics("reference")])

    def host_of(self, pid):
        """The host of a process: its network."""
        return os.readlink(f"/proc/{pid}/ns/net")

    def ranks_by_host(self):
        hosts = {}
        for pid in self.ranks():
            hosts.setdefault(self.host_of(pid), []).append(pid)
        return hosts

    def away(self):
        """The processes of a host that has no mpirun."""
        mpirun = next(entry for entry in Path("/proc").glob("[0-9]*") if str(self.folder) in self.command_of(entry) and "mpirun" in self.command_of(entry).split()[0])
        first = self.host_of(mpirun.name)
        other = next(host for host in self.ranks_by_host() if host != first)
        return [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if self.is_on(entry.name, other)]

    def is_on(self, pid, host):
        try:
            return self.host_of(pid) == host
        except OSError:
            return False

    @staticmethod
    def command_of(entry):
        try:
            return (entry / "cmdline").read_text().replace("\0", " ").strip() or "none"
        except OSError:
            return "none"

    def test_a_killed_rank_ends_the_job(self):
        shell = self.begin([1, 1])
        os.kill(self.ranks()[-1], signal.SIGKILL)
        self.assertNotEqual(self.ended(within=10), 0)
        self.assert_goes_on(shell, [1, 1])

    def test_a_host_that_dies_ends_the_job(self):
        shell = self.begin([1, 1])
        for pid in self.away():
            with contextlib.suppress(ProcessLookupError):  # they end with the first of them
                os.kill(pid, signal.SIGKILL)
        self.assertNotEqual(self.ended(within=15), 0)
        self.assert_goes_on(shell, [1, 1])

    def test_a_stopped_rank_is_named_with_its_host(self):
        shell = self.begin([1, 1], timeout=4)
        pid = next(pid for pid in self.away() if self.command_of(Path(f"/proc/{pid}")).startswith(LONGNET))
        os.kill(pid, signal.SIGSTOP)
        self.assertEqual(self.ended(within=4 + 8), 6, self.said())
        self.assertRegex(self.said(), r"did not end within 4 s.*stopped, gone or at work elsewhere are rank 1 on h2")
        self.assert_goes_on(shell, [1, 1])

    def test_a_link_that_comes_back_is_waited_for(self):
        shell = self.begin([1, 1])
        steps = len(self.metrics())
        self.done(shell, "ip -n switch link set port2 down; sleep 4; ip -n switch link set port2 up")
        self.assertEqual(self.ended(within=60), 0, self.said())
        self.assertLess(steps, 120)
        self.assert_same_shards("run", "reference")

    def test_a_link_that_stays_down_is_told(self):
        shell = self.begin([1, 1], timeout=4)
        self.done(shell, "ip -n switch link set port2 down")
        self.assertEqual(self.ended(within=4 + 20), 6, self.said())
        self.assertRegex(self.said(), "did not end within 4 s.*stopped, gone or at work elsewhere are rank 1 on h2")
        self.assertIn("cannot reach the other hosts", self.said())
        self.done(shell, "ip -n switch link set port2 up")
        time.sleep(2)
        self.assert_goes_on(shell, [1, 1])


if __name__ == "__main__":
    main()
