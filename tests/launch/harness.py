"""What tests of the program share: a folder of its own for each test, and the program under mpirun."""

import json
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

LONGNET, MPIRUN = sys.argv[1], sys.argv[2]


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
        lines = [line for line in result.stderr.splitlines() if line.startswith("longnet:")]
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


def settings(*assignments):
    """The options of the program that set these."""
    return [option for assignment in assignments for option in ("--set", assignment)]


def main():
    unittest.main(module="__main__", argv=[sys.argv[0], "--verbose", *sys.argv[3:]])
