"""What tests of the program share: a folder of its own for each test, and the program under mpirun."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

LONGNET, MPIRUN = sys.argv[1], sys.argv[2]


def settings(*assignments):
    """The options of the program that set these."""
    return [option for assignment in assignments for option in ("--set", assignment)]


class ProgramTest(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="longnet-program-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def command(self, ranks, *arguments):
        return [MPIRUN, "--oversubscribe", "--bind-to", "none", "-np", str(ranks), LONGNET, *map(str, arguments)]

    def run_program(self, ranks, *arguments, code=0, timeout=300):
        result = subprocess.run(self.command(ranks, *arguments), capture_output=True, text=True, timeout=timeout,
                                errors="replace")
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)
        return result

    def expect_error(self, code, text, ranks, *arguments):
        """One line of ours, with `text`, soon, and nothing left running."""
        result = self.run_program(ranks, *arguments, code=code, timeout=30)
        lines = [line for line in result.stderr.splitlines() if line.startswith("longnet:") and not line.startswith("longnet: warning:")]
        self.assertEqual(len(lines), 1, result.stderr)
        self.assertIn(text, lines[0])
        self.assert_nothing_runs()
        return lines[0]

    def running(self):
        """The command lines of processes that work in this test's folder."""
        mine, found = str(self.folder).encode(), []
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                command = process.read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if mine in command:
                found.append(command)
        return found

    def assert_nothing_runs(self, within=0):
        deadline = time.time() + within
        while self.running() and time.time() < deadline:
            time.sleep(0.1)
        self.assertEqual(self.running(), [])

    def metrics(self, run="run"):
        return [json.loads(line) for line in (self.folder / run / "metrics.jsonl").read_text().splitlines()]


CONFIG = """\
run: {folder}/run
model:
  type: decoder
  vocabulary: 128
  width: 16
  layers: 2
  heads: 4
  feed_forward: 32
  attention: {{segments: [16, 64], rates: [1, 2]}}
  dropout: 0.1
data: {{train: [{folder}/text], validation_fraction: 0.2, sequence_length: 64}}
parallel: {{threads: 1}}
optimizer: {{learning_rate: 1.0e-2, warmup_steps: 2, clip_norm: 1.0}}
training: {{steps: 6, batch_size: 4, seed: 3}}
checkpoint: {{every_steps: 3, keep: 5}}
"""


class SmallTraining(ProgramTest):
    """A training that takes a second or two, and what tests do to it."""

    def setUp(self):
        super().setUp()
        text = "".join(f"line {i}: the quick brown fox jumps over {i * i % 97} lazy dogs\n" for i in range(200))
        (self.folder / "text").write_text(text)
        self.config = self.folder / "config.yaml"
        self.config.write_text(CONFIG.format(folder=self.folder))

    def train(self, ranks, *assignments, code=0, resume=None):
        options = ["--resume", str(resume)] if resume else []
        return self.run_program(ranks, "train", self.config, *settings(*assignments), *options, code=code)

    def expect_config_error(self, code, text, *assignments, ranks=2):
        return self.expect_error(code, text, ranks, "train", self.config, *settings(*assignments))

    @staticmethod
    def trajectory(metrics):
        return [(line["step"], line["loss"], line["gradient_norm"]) for line in metrics]

    def wait_for_steps(self, process):
        """Until a training has made some."""
        metrics = self.folder / "run/metrics.jsonl"
        deadline = time.time() + 60
        while not (metrics.exists() and metrics.read_text().count("\n") > 2):
            self.assertTrue(process.poll() is None and time.time() < deadline, "it makes no steps")
            time.sleep(0.02)

    def interrupt(self, command, *signals, environment=None):
        """The exit code and output of an endless training that gets these signals once it has made some steps."""
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                   env={**os.environ, "LONGNET": LONGNET, **(environment or {})})
        self.wait_for_steps(process)
        for number in signals:
            process.send_signal(number)
            time.sleep(0.3)
        output, _ = process.communicate(timeout=60)
        self.assert_nothing_runs()
        return process.returncode, output

    ENDLESS = settings("training.steps=1000000", "logging.every_steps=1000000")
    SCRIPT = str(Path(__file__).resolve().parents[2] / "launch/mpirun.sh")

    def on_a_small_disk(self, size):
        disk = self.folder / "disk"
        disk.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk], capture_output=True).returncode != 0:
            self.skipTest("needs to be allowed to mount")
        self.addCleanup(subprocess.run, ["umount", "--lazy", disk], check=True)
        return disk

    def fill(self, disk):
        with open(disk / "filler", "wb", buffering=0) as file:
            for size in (1 << 16, 1 << 12, 1):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    pass

    def ranks_of(self, process):
        """The ranks' process numbers, in the order in which mpirun started them."""
        deadline = time.time() + 30
        while time.time() < deadline:
            children = [int(pid) for task in Path(f"/proc/{process.pid}/task").glob("*/children") for pid in task.read_text().split()]
            if children and all(b"longnet" in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children):
                return children
            time.sleep(0.02)
        self.fail("no ranks")


def main():
    unittest.main(module="__main__", argv=[sys.argv[0], "--verbose", *sys.argv[3:]])
