"""What tests among several hosts share: a shell in a world of world.sh or slurm.sh, and a training small enough for them."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "launch"))
tempfile.tempdir = os.getcwd()  # hosts have a /tmp each, and share the rest

from harness import SmallTraining  # noqa: E402


def missing(*programs):
    """Why there can be no hosts here; None where there can."""
    if os.geteuid() != 0:
        return "needs root"
    absent = [program for program in ("ip", "unshare", "nsenter", *programs) if not shutil.which(program)]
    if absent:
        return f"there is no {', '.join(absent)}"
    world = subprocess.run([HERE / "world.sh", "2", HERE / "on_host.sh", "h2", "true"], capture_output=True, text=True, timeout=60)
    return f"no hosts can be made: {world.stderr}" if world.returncode != 0 else None


class Shell:
    """A shell that lives as long as its world, and takes one command after another."""

    END = "== end of the command =="

    def __init__(self, *command):
        self.process = subprocess.Popen([*map(str, command), "bash"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True, errors="replace")

    def run(self, command):
        """The exit code and the output."""
        self.process.stdin.write(f"{{ {command}\n}} </dev/null 2>&1\ncode=$?; echo; echo '{self.END}' $code\n")
        self.process.stdin.flush()
        lines = []
        for line in self.process.stdout:
            if line.startswith(self.END):
                return int(line.split()[-1]), "".join(lines)
            lines.append(line)
        raise AssertionError("the world has ended: " + "".join(lines))

    def close(self):
        self.process.stdin.close()
        self.process.kill()
        self.process.stdout.close()
        self.process.wait()


class AmongHosts(SmallTraining):
    def world(self, hosts):
        return self.shell(HERE / "world.sh", hosts)

    def shell(self, *command):
        shell = Shell(*command)
        self.addCleanup(shell.close)
        return shell

    def done(self, shell, command, code=0):
        """The output of a command that ends with `code`."""
        actual, output = shell.run(command)
        self.assertEqual(actual, code, f"{command}: {output}")
        return output

    def until(self, condition, what, seconds=60):
        deadline = time.time() + seconds
        while not condition():
            if time.time() > deadline:
                self.fail(what() if callable(what) else what)
            time.sleep(0.1)

    def ranks(self):
        """Their process numbers."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if command[0].endswith(b"/longnet") and str(self.folder).encode() in b" ".join(command):
                found.append(int(entry.name))
        return sorted(found)

    def assert_same_losses(self, run, reference, tolerance=1e-10):
        actual, expected = self.metrics(run), self.metrics(reference)
        self.assertEqual([line["step"] for line in actual], [line["step"] for line in expected])
        for one, other in zip(actual, expected):
            self.assertLessEqual(abs(one["loss"] - other["loss"]), tolerance * abs(other["loss"]), one["step"])

    def assert_same_shards(self, run, reference):
        """Of the last checkpoint, byte for byte."""
        newest = sorted((self.folder / reference / "checkpoints").glob("step-*"))[-1]
        shards = sorted(newest.glob("*.safetensors"))
        self.assertTrue(shards)
        for shard in shards:
            other = self.folder / run / "checkpoints" / newest.name / shard.name
            self.assertEqual(other.read_bytes(), shard.read_bytes(), other)
