#!/usr/bin/env python3
"""Stops a rank (SIGSTOP) in the middle of a save, of a load and of a look at checkpoints: the others say within the time-out who is missing,
nothing stays, and the next start goes on to the weights of a run that nobody disturbed.

    stopped_rank.py LONGNET MPIRUN LIBRARY [--timeout 3]
"""

import argparse
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

from failing_files import Program, weights_of


def first(operations, pattern):
    return next(number for number, operation in enumerate(operations, 1) if re.search(pattern, operation))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("longnet")
    parser.add_argument("mpirun")
    parser.add_argument("library")
    parser.add_argument("--timeout", type=int, default=3)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="longnet-stopped-"))
    try:
        program = Program(options.longnet, options.mpirun, options.library, 2, folder)
        program.config.write_text(program.config.read_text().replace("timeout_seconds: 30", f"timeout_seconds: {options.timeout}"))
        run, halfway = folder / "run", folder / "halfway"
        assert program.run(["train", "--set", "training.steps=2"]).returncode == 0
        run.rename(halfway)

        program.begin(None)
        assert program.run(["train"]).returncode == 0
        reference, wrong = weights_of(folder), 0
        for what, command, before, rank, pattern in (
                ("a save, before its shard is there", ["train"], None, 1, r"open .*partial.*/shard-"),
                ("a save, before its shard is on the disk", ["train"], None, 1, r"fsync .*partial.*/shard-"),
                ("a save, before it gets its name", ["train"], None, 0, r"rename .*/step-"),
                ("a look at checkpoints", ["train"], halfway, 0, r"open .*/manifest.json"),
                ("a load", ["train"], halfway, 1, r"open .*/shard-"),
                ("an evaluation's load", ["eval"], halfway, 1, r"open .*/shard-")):
            program.begin(before)
            number = first(program.operations(command, FAIL_RANK=str(rank)), pattern)
            program.begin(before)
            start = time.time()
            result = program.run(command, FAIL_AT=str(number), FAIL_WITH="stop", FAIL_RANK=str(rank))
            seconds = time.time() - start
            # A rank that mpirun wakes to end it may say that it has nothing to save.
            lines = [line for line in result.stderr.splitlines() if line.startswith("longnet:") and "nothing to save" not in line]
            problems = []
            if result.returncode != 6:
                problems.append(f"exit code {result.returncode}")
            if seconds > options.timeout + 5:
                problems.append(f"it took {seconds:.0f} s")
            if len(lines) != 1 or not re.search(rf"did not end within {options.timeout} s.*stopped, gone or at work elsewhere are rank {rank} on", lines[0]):
                problems.append(f"it says {lines}")
            if program.run(["train"]).returncode != 0 or weights_of(folder) != reference:
                problems.append("the next start does not make up for it")
            print(f"rank {rank} stopped in {what}: " + ("; ".join(problems) or f"told after {seconds:.1f} s"), flush=True)
            wrong += bool(problems)
        sys.exit(1 if wrong else 0)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
