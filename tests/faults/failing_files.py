#!/usr/bin/env python3
"""Lets every file operation of a training fail once, in every way, and looks at what becomes of it: nothing that was saved is lost, nothing ends
by a signal or hangs, and the next start gives the weights of a run that nobody disturbed, to the last bit.

    failing_files.py LONGNET MPIRUN LIBRARY [--ranks 1] [--part 0/1] [--ways EIO ENOSPC EINTR short]

Of operations that follow each other on one file, the first, the second and the last fail; --part 2/7 takes each seventh case.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

CONFIG = """\
model: {{type: decoder, vocabulary: 128, width: 8, layers: 1, heads: 2, feed_forward: 8, dropout: 0.1,
        attention: {{segments: [16, 64], rates: [1, 2]}}}}
data: {{train: [{folder}/text], validation_fraction: 0.2, sequence_length: 64}}
parallel: {{threads: 1, timeout_seconds: 30}}
optimizer: {{schedule: constant, warmup_steps: 0}}
training: {{steps: 3, batch_size: 2, seed: 3}}
checkpoint: {{every_steps: 1, keep: 1}}
run: {folder}/run
"""
LEFT = re.compile(r"config\.yaml|metrics\.jsonl|log\.txt|events\.out\.tfevents\..*|checkpoints|checkpoints/step-\d+(/manifest\.json|/shard-.*)?")


class Program:
    def __init__(self, longnet, mpirun, library, ranks, folder):
        self.folder, self.library, self.ranks = folder, library, ranks
        self.start = [longnet] if ranks == 1 else [mpirun, "--oversubscribe", "--bind-to", "none", "-np", str(ranks), longnet]
        (folder / "text").write_text("".join(f"line {i} of {i * i % 97}\n" for i in range(400)))
        self.config = folder / "config.yaml"
        self.config.write_text(CONFIG.format(folder=folder))

    def run(self, command, **failing):
        environment = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_mpi_yield_when_idle": "1"}
        if failing:
            environment.update({"LD_PRELOAD": self.library, "FAIL_BELOW": str(self.folder / "run")}, **failing)
            if self.ranks > 1:
                environment.setdefault("FAIL_RANK", str(self.ranks - 1))
        return subprocess.run([*self.start, *command, str(self.config)], capture_output=True, text=True, errors="replace", timeout=90, env=environment)

    def begin(self, before):
        """The run folder as it was: a copy of `before`, or none."""
        shutil.rmtree(self.folder / "run", ignore_errors=True)
        if before:
            shutil.copytree(before, self.folder / "run")

    def operations(self, command, **which):
        """Names and paths, in order, of an undisturbed run."""
        log = self.folder / "operations"
        result = self.run(command, FAIL_AT="0", FAIL_LOG=str(log), **which)
        assert result.returncode == 0, result.stderr
        lines = [line.split(" ", 1)[1] for line in log.read_text().splitlines()]
        log.unlink()
        return lines


def chosen(operations):
    """The numbers of the first, the second and the last of equal ones in a row."""
    numbers = []
    for number, operation in enumerate(operations, 1):
        before = operations[number - 2] if number > 1 else None
        before_that = operations[number - 3] if number > 2 else None
        after = operations[number] if number < len(operations) else None
        if not (operation == before == before_that and operation == after):
            numbers.append(number)
    return numbers


def weights_of(folder):
    return {path.name: path.read_bytes() for path in sorted((folder / "run/checkpoints/step-00000003").glob("shard-*"))}


def check(program, case, command, result, reference):
    """What is wrong after a disturbed run and the next, undisturbed, one."""
    said = result.stdout + result.stderr
    if result.returncode < 0 or result.returncode > 128:
        return f"ended by a signal ({result.returncode})"
    if result.returncode != 0 and "longnet: " not in result.stderr:
        return "ended without a word"
    if "internal error" in said:
        return "an internal error"
    if command == ["train"] and result.returncode == 0 and weights_of(program.folder) != reference:
        return "it succeeded, and its weights are others"
    again = program.run(["train"])
    if again.returncode != 0:
        return f"the next start ends with {again.returncode}: {again.stderr}"
    if weights_of(program.folder) != reference:
        return "the next start has other weights"
    steps = [json.loads(line)["step"] for line in (program.folder / "run/metrics.jsonl").read_text().splitlines()]
    if steps != [1, 2, 3] and "lacks the lines" not in again.stdout and "lost" not in said:
        return f"metrics.jsonl has steps {steps}, and nothing is said"
    left = [str(path.relative_to(program.folder / "run")) for path in (program.folder / "run").rglob("*")]
    left = [name for name in left if not LEFT.fullmatch(name)]
    return f"left over: {left}" if left else None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("longnet")
    parser.add_argument("mpirun")
    parser.add_argument("library")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--part", default="0/1")
    parser.add_argument("--ways", nargs="+", default=["EIO", "ENOSPC", "EINTR", "short"])
    options = parser.parse_args()
    part, parts = map(int, options.part.split("/"))
    folder = Path(tempfile.mkdtemp(prefix="longnet-files-"))
    try:
        program = Program(options.longnet, options.mpirun, options.library, options.ranks, folder)
        run, halfway = folder / "run", folder / "halfway"
        result = program.run(["train", "--set", "training.steps=2"])
        assert result.returncode == 0, result.stderr
        run.rename(halfway)
        cases, wrong, ended = 0, [], 0
        for name, command, before in (("a new run", ["train"], None), ("a resumed run", ["train"], halfway), ("an evaluation", ["eval"], halfway)):
            program.begin(before)
            operations = program.operations(command)
            if command == ["train"] and not before:
                reference = weights_of(folder)
            for number in chosen(operations):
                for way in options.ways:
                    cases += 1
                    if cases % parts != part:
                        continue
                    program.begin(before)
                    case = f"{name}, {way} at {number}: {operations[number - 1]}"
                    try:
                        disturbed = program.run(command, FAIL_AT=str(number), FAIL_WITH=way)
                        problem = check(program, case, command, disturbed, reference)
                    except subprocess.TimeoutExpired:
                        problem = "it hangs"
                    ended += disturbed.returncode != 0
                    if problem:
                        wrong.append(case)
                        print(f"{case}: {problem}\n{disturbed.stdout[-1500:]}{disturbed.stderr[-1500:]}", flush=True)
        made = sum(1 for case in range(1, cases + 1) if case % parts == part)
        print(f"{made} operations failed, {ended} of them ended the program; {len(wrong)} cases are wrong")
        sys.exit(1 if wrong else 0)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
