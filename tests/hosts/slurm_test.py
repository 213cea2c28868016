"""launch/scripts/slurm.sbatch under a real Slurm, on hosts made of this machine.

    slurm_test.py LONGNET MPIRUN [unittest arguments]
"""

import os
import re
import shlex
import signal
import subprocess
import time

from world import HERE, AmongHosts, missing
from harness import LONGNET, main, settings

SCRIPT = HERE.parent.parent / "launch/scripts/slurm.sbatch"
ENDLESS = ["training.steps=100000", "logging.every_steps=1000000", "checkpoint.every_steps=20", "optimizer.schedule=constant"]


class Slurm(AmongHosts):
    def setUp(self):
        super().setUp()
        reason = missing("slurmctld", "slurmd", "munged")
        if reason:
            self.skipTest(reason)

    def start(self, nodes):
        return self.shell(HERE / "slurm.sh", nodes)

    def submit(self, shell, nodes, *assignments, program=LONGNET, environment="", more=""):
        """The number of a job, submitted from the folder of the test."""
        words = shlex.join(settings("training.precision=fp64", *assignments))
        output = self.done(shell, f"cd {self.folder}; {environment} LONGNET={program} sbatch --nodes={nodes} --ntasks-per-node=1 --output={self.folder}/out "
                                  f"{SCRIPT} {self.config} {words} {more}")
        return int(re.search(r"Submitted batch job (\d+)", output)[1])

    def field(self, shell, job, name):
        return re.search(rf"\b{name}=(\S+)", self.done(shell, f"scontrol show job {job}"))[1]

    def until_state(self, shell, job, state, seconds=60):
        self.until(lambda: self.field(shell, job, "JobState") == state,
                   lambda: f"not {state}: {self.said()} {self.done(shell, f'scontrol show job {job}; tail -n 6 /run/slurm/slurmctld.log /run/slurm/slurmd.h1.log')}", seconds)

    def run_again(self, shell, job):
        """Slurm lets a job that was queued again wait for two minutes. Its nodes refuse it while they still end what it ran."""
        self.until(lambda: self.field(shell, job, "JobState") == "PENDING", f"{job} is not queued again: {self.said()}")
        self.until(lambda: not self.steps_under_way(), "the steps do not end")
        time.sleep(2)  # Slurm counts their ends in whole seconds
        self.until(lambda: shell.run(f"scontrol update JobId={job} StartTime=now")[0] == 0, "it cannot be started now")
        self.until(lambda: self.field(shell, job, "JobState") != "PENDING",
                   lambda: f"it does not run again: {self.done(shell, f'scontrol show job {job}')}")

    @staticmethod
    def steps_under_way():
        return subprocess.run(["pgrep", "slurmstepd"], capture_output=True, text=True).stdout

    def said(self):
        path = self.folder / "out"
        return path.read_text() if path.exists() else ""

    def until_step(self, step):
        self.until(lambda: (self.folder / "run/metrics.jsonl").exists() and len(self.metrics()) >= step, f"no step {step}: {self.said()}")

    def undisturbed(self, ranks, steps):
        self.train(ranks, "training.precision=fp64", *ENDLESS, f"training.steps={steps}", f"run={self.folder}/undisturbed")

    def test_a_job_runs_to_its_end(self):
        shell = self.start(2)
        job = self.submit(shell, 2, "training.steps=6")
        self.until_state(shell, job, "COMPLETED")
        self.train(2, "training.precision=fp64", f"run={self.folder}/undisturbed")
        self.assert_same_losses("run", "undisturbed")
        self.assert_same_shards("run", "undisturbed")
        self.assertEqual([path.name for path in self.folder.glob("longnet-*")], [], "nothing is left")

    def test_a_job_that_is_asked_to_stop_goes_on_later(self):
        shell = self.start(2)
        job = self.submit(shell, 2, *ENDLESS, "training.steps=150")
        self.until_step(30)
        self.done(shell, f"scancel --signal=USR1 {job}")  # as --signal=USR1@300 does before the time is up
        self.run_again(shell, job)
        self.until_state(shell, job, "COMPLETED")
        said = self.said()
        self.assertIn("the checkpoint is saved, start again to go on", said)
        self.assertIn("exit code 75; the job is queued again", said)
        self.assertIn(f"started again: number 1 of Slurm job {job}", said, "the log was appended to")
        self.undisturbed(2, 150)
        self.assert_same_losses("run", "undisturbed")
        self.assert_same_shards("run", "undisturbed")

    def test_a_job_whose_rank_is_killed_goes_on_later(self):
        shell = self.start(2)
        job = self.submit(shell, 2, *ENDLESS, "training.steps=150")
        self.until_step(30)
        os.kill(self.ranks()[-1], signal.SIGKILL)
        self.run_again(shell, job)
        self.until_state(shell, job, "COMPLETED")
        self.assertRegex(self.said(), r"exit code 1\d\d; the job is queued again")
        self.undisturbed(2, 150)
        self.assert_same_shards("run", "undisturbed")

    def test_a_job_that_is_cancelled_stays_so(self):
        shell = self.start(2)
        job = self.submit(shell, 2, *ENDLESS)
        self.until_step(30)
        self.done(shell, f"scancel {job}")
        self.until_state(shell, job, "CANCELLED")
        time.sleep(2)
        self.assertEqual(self.field(shell, job, "JobState"), "CANCELLED")
        self.assertNotIn("queued again", self.said())
        self.assertEqual(self.ranks(), [])

    def test_a_job_that_makes_no_progress_ends(self):
        program = self.folder / "program"
        program.write_text("#!/bin/sh\nexit 6\n")
        program.chmod(0o755)
        shell = self.start(1)
        job = self.submit(shell, 1, program=program, environment="LONGNET_RESTARTS=1")
        self.run_again(shell, job)
        self.until_state(shell, job, "FAILED")
        self.assertEqual(self.said().count("the job is queued again"), 1)
        self.assertIn("the last starts brought no new checkpoint, the job ends", self.said())

    def test_a_job_resumes_from_where_it_was_told_until_it_has_a_checkpoint(self):
        self.train(1, f"run={self.folder}/before", "training.precision=fp64")
        program = self.folder / "program"
        program.write_text(f"#!/bin/sh\nif [ ! -e {self.folder}/once ]; then touch {self.folder}/once; exit 6; fi\nexec {LONGNET} \"$@\"\n")
        program.chmod(0o755)
        shell = self.start(1)
        job = self.submit(shell, 1, program=program, more=f"--resume {self.folder}/before/checkpoints/step-00000003")
        self.run_again(shell, job)
        self.until_state(shell, job, "COMPLETED")
        self.assertIn("before/checkpoints/step-00000003 at step 3", self.said())
        self.assertEqual([line["step"] for line in self.metrics()], [4, 5, 6])

    def test_a_job_without_a_program_says_so(self):
        shell = self.start(1)
        job = self.submit(shell, 1, program=self.folder / "none")
        self.until_state(shell, job, "FAILED")
        self.assertIn(f"there is no program {self.folder / 'none'} on h1", self.said())


if __name__ == "__main__":
    main()
