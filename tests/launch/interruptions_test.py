"""What ends or stops a training from outside: signals, terminals, killed and stopped ranks, the clock.

    interruptions_test.py LONGNET MPIRUN [unittest arguments]
"""

import os
import pty
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

from harness import LONGNET, SmallTraining, main, settings


class Interruptions(SmallTraining):
    def test_a_signal_saves_and_asks_to_be_requeued(self):
        command = self.command(2, "train", self.config, "--set", "training.steps=100000", "--set", "checkpoint.every_steps=0")
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.wait_for_steps(process)
        process.send_signal(signal.SIGUSR1)
        output, _ = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 75, output)
        self.assertIn("stopped on request", output)
        steps = len(self.metrics())
        self.assertEqual([p.name for p in (self.folder / "run/checkpoints").iterdir()], [f"step-{steps:08d}"])

    def test_a_signal_while_the_program_starts_is_kept(self):
        for command in ([self.SCRIPT, "2"], [LONGNET]):
            for delay in (0.03, 0.1, 0.2, 0.4, 0.7, 1.0):
                process = subprocess.Popen([*command, "train", str(self.config), *self.ENDLESS], stdout=subprocess.PIPE,
                                           stderr=subprocess.STDOUT, text=True, env={**os.environ, "LONGNET": LONGNET})
                time.sleep(delay)
                process.send_signal(signal.SIGTERM)
                output, _ = process.communicate(timeout=60)
                self.assertEqual(process.returncode, 75, f"after {delay} s: {output}")
                self.assertRegex(output, "the checkpoint is saved|stopped before the first step; nothing to save")
                self.assert_nothing_runs()
                shutil.rmtree(self.folder / "run", ignore_errors=True)

    def test_a_signal_before_the_first_step_ends_at_once(self):
        large = settings("model.width=2048", "model.feed_forward=8192", "model.layers=6", "model.heads=16")  # 300 million parameters
        for command, asked in (([self.SCRIPT, "2"], None), (self.command(2)[:-1] + [LONGNET], "mpirun"), (self.command(2)[:-1] + [LONGNET], "a rank")):
            process = subprocess.Popen([*command, "train", str(self.config), *self.ENDLESS, *large], stdout=subprocess.PIPE,
                                       stderr=subprocess.STDOUT, text=True, env={**os.environ, "LONGNET": LONGNET})
            self.wait_until_built_in_part()
            begin = time.time()
            if asked == "a rank":
                os.kill(self.ranks_of(process)[1], signal.SIGTERM)
            else:
                process.send_signal(signal.SIGUSR1 if asked else signal.SIGTERM)
            output, _ = process.communicate(timeout=60)
            self.assertLess(time.time() - begin, 5)
            self.assertEqual(process.returncode, 75, output)
            self.assertEqual(output.count("longnet: stopped before the first step; nothing to save"), 1, output)
            self.assert_nothing_runs()
            self.assertFalse(list(self.folder.glob("run/lock")) + list(self.folder.glob("run/checkpoints/*")))

    def wait_until_built_in_part(self):
        """Until a rank holds more than the program alone does."""
        deadline = time.time() + 60
        while time.time() < deadline:
            for status in Path("/proc").glob("[0-9]*/status"):
                try:
                    text = status.read_text()
                    if "longnet-program"[:15] in text and str(self.folder).encode() in (status.parent / "cmdline").read_bytes():
                        if int(text.split("VmRSS:")[1].split()[0]) > 600_000:  # kB
                            return
                except (FileNotFoundError, ProcessLookupError, IndexError):
                    continue
            time.sleep(0.01)
        self.fail("no model is built")

    def test_a_signal_while_resuming_leaves_the_checkpoint(self):
        self.train(2)
        before = sorted(self.folder.glob("run/checkpoints/**/*"))
        process = subprocess.Popen([self.SCRIPT, "2", "train", str(self.config), *self.ENDLESS], stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, text=True, env={**os.environ, "LONGNET": LONGNET})
        while not (self.folder / "run/lock").exists():
            time.sleep(0.001)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 75, output)
        self.assertLessEqual(set(before), set(self.folder.glob("run/checkpoints/**/*")))
        self.assertNotIn("did not end by itself", self.train(2, "training.steps=9").stdout)

    def test_control_c_and_a_terminal_that_closes_save(self):
        for closes in (False, True):
            process, master = pty.fork()
            if process == 0:
                os.execve(self.SCRIPT, [self.SCRIPT, "2", "train", str(self.config), *self.ENDLESS], {**os.environ, "LONGNET": LONGNET})
            metrics = self.folder / "run/metrics.jsonl"
            while not (metrics.exists() and metrics.read_text().count("\n") > 2):
                os.read(master, 4096)
            if closes:
                os.close(master)
            else:
                os.write(master, b"\x03")
                while True:
                    try:
                        os.read(master, 4096)
                    except OSError:
                        break
                os.close(master)
            _, status = os.waitpid(process, 0)
            self.assertEqual(os.waitstatus_to_exitcode(status), 75, "closed" if closes else "Ctrl-C")
            steps = len(self.metrics())
            self.assertTrue((self.folder / f"run/checkpoints/step-{steps:08d}/manifest.json").exists())
            self.assert_nothing_runs()
            shutil.rmtree(self.folder / "run")

    def test_an_interrupt_saves(self):
        for command in ([self.SCRIPT, "2"], [LONGNET]):
            for numbers in ((signal.SIGINT,), (signal.SIGTERM, signal.SIGTERM), (signal.SIGHUP,)):
                code, output = self.interrupt([*command, "train", str(self.config), *self.ENDLESS], *numbers)
                self.assertEqual(code, 75, output)
                self.assertIn("the checkpoint is saved", output)
                self.assertNotIn("MPI_ABORT", output)
                steps = len(self.metrics())
                self.assertTrue((self.folder / f"run/checkpoints/step-{steps:08d}/manifest.json").exists())
                shutil.rmtree(self.folder / "run")

    def test_a_second_interrupt_ends_at_once(self):
        # A micro-batch that takes a minute, so that the first interrupt alone would not end it.
        slow = settings("training.steps=9", "data.sequence_length=65536", "model.width=256", "model.layers=8", "data.validation_fraction=0",
                        "training.batch_size=1", "training.recompute=true", "model.feed_forward=1024")
        (self.folder / "text").write_text("a line of text\n" * 5000)
        process = subprocess.Popen([LONGNET, "train", str(self.config), *slow], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        time.sleep(4)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        self.assertIsNone(process.poll())
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=10)
        self.assertEqual(process.returncode, -signal.SIGINT, output)
        self.assertIn("interrupt again to stop at once", output)

    def test_a_signal_is_answered_with_the_step_under_way(self):
        # Steps of a second or more.
        slow = settings("data.sequence_length=4096", "model.width=128", "training.batch_size=8", "data.validation_fraction=0")
        (self.folder / "text").write_text("a line of text\n" * 4000)
        process = subprocess.Popen([LONGNET, "train", str(self.config), *self.ENDLESS, *slow], stdout=subprocess.DEVNULL)
        metrics = self.folder / "run/metrics.jsonl"
        while not (metrics.exists() and metrics.read_text().count("\n") > 0):
            time.sleep(0.01)
        # The numbers of step 1 are written when step 2 has been made.
        time.sleep(0.1)
        done = metrics.read_text().count("\n") + 1
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(timeout=60), 75)
        self.assertEqual(len(self.metrics()), done + 1)

    def test_a_long_step_is_given_up(self):
        slow = settings("data.sequence_length=4096", "model.width=128", "data.validation_fraction=0", "training.steps=9")
        (self.folder / "text").write_text("a line of text\n" * 4000)

        def stopped(ready):
            """The output of a training on two ranks, one of which gets a signal when the output holds `ready`; and how long its end took."""
            process = subprocess.Popen(self.command(2, "train", self.config, *slow, "--set", "training.batch_size=1000"),
                                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            output = ""
            while ready not in output:
                line = process.stdout.readline()
                self.assertTrue(line, output)
                output += line
            time.sleep(1)
            begin = time.time()
            os.kill(self.ranks_of(process)[1], signal.SIGTERM)
            output += process.communicate(timeout=60)[0]
            self.assertLess(time.time() - begin, 15)
            self.assertEqual(process.returncode, 75, output)
            self.assert_nothing_runs()
            return output

        self.assertIn("stopped on request in the first step; nothing to save", stopped(ready="run folder"))
        self.run_program(2, "train", self.config, *slow, "--set", "training.steps=1")
        output = stopped(ready="resumed from")
        self.assertIn("stopped on request after step 1; step 2, which would have taken long, is given up; the checkpoint is saved", output)
        self.assertEqual([line["step"] for line in self.metrics()], [1])
        self.run_program(2, "train", self.config, *slow, "--set", "training.steps=2")
        self.assertEqual([line["step"] for line in self.metrics()], [1, 2])

    def test_an_evaluation_is_given_up(self):
        (self.folder / "text").write_text("a line of text\n" * 20000)
        process = subprocess.Popen(self.command(2, "train", self.config, *settings("training.evaluate_every_steps=3", "data.validation_fraction=0.9",
                                                                                 "training.evaluation_sequences=1000000", "checkpoint.every_steps=0", "training.steps=9")),
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.wait_for_steps(process)
        os.kill(self.ranks_of(process)[1], signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 75, output)
        self.assertIn("the evaluation after step 3 is given up", output)
        self.assertNotIn("validation loss", output)
        self.assertTrue((self.folder / "run/checkpoints" / f"step-{len(self.metrics()):08d}/manifest.json").exists())

    def test_a_reader_that_goes_ends_no_training(self):
        for command in ([self.SCRIPT, "2"], [LONGNET]):
            line = " ".join([*command, "train", str(self.config), "--set", "training.steps=60"])
            result = subprocess.run(["bash", "-c", f"{line} 2>&1 | head -1; exit ${{PIPESTATUS[0]}}"], capture_output=True, text=True, timeout=60,
                                    env={**os.environ, "LONGNET": LONGNET})
            self.assertEqual(result.returncode, 0, result.stdout)
            self.assertEqual(len(self.metrics()), 60)
            self.assert_nothing_runs()
            shutil.rmtree(self.folder / "run")

    def test_closed_streams_are_in_nobodys_way(self):
        for closed in (">&-", "<&- >&- 2>&-", "2>&-", ">/dev/full 2>/dev/full"):
            line = " ".join([self.SCRIPT, "2", "train", str(self.config), closed])
            result = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, env={**os.environ, "LONGNET": LONGNET})
            self.assertEqual(result.returncode, 0, f"{closed}: {result.stderr}")
            self.assertEqual(len(self.metrics()), 6)
            shutil.rmtree(self.folder / "run")

    def test_control_c_in_a_pipeline_saves(self):
        line = " ".join([self.SCRIPT, "2", "train", str(self.config), *self.ENDLESS])
        process = subprocess.Popen(["bash", "-c", f"{line} 2>&1 | tee {self.folder}/log; exit ${{PIPESTATUS[0]}}"], start_new_session=True,
                                   stdout=subprocess.DEVNULL, env={**os.environ, "LONGNET": LONGNET})
        self.wait_for_steps(process)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does it: tee ends at once
        process.wait(timeout=60)
        deadline = time.time() + 30
        while self.running() and time.time() < deadline:
            time.sleep(0.1)
        self.assert_nothing_runs()
        last = self.metrics()[-1]["step"]
        self.assertTrue((self.folder / f"run/checkpoints/step-{last:08d}/manifest.json").exists())

    def test_time_makes_checkpoints(self):
        self.train(2, "training.steps=400", "checkpoint.every_steps=0", "checkpoint.every_minutes=0.005", "checkpoint.keep=100")
        names = [path.name for path in (self.folder / "run/checkpoints").iterdir()]
        self.assertGreater(len(names), 2)
        self.assertIn("step-00000400", names)

    def test_a_stopped_rank_is_named(self):
        command = self.command(3, "train", self.config, *self.ENDLESS, "--set", "parallel.timeout_seconds=3")
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.wait_for_steps(process)
        os.kill(self.ranks_of(process)[1], signal.SIGSTOP)
        begin = time.time()
        _, errors = process.communicate(timeout=60)
        self.assertLess(time.time() - begin, 3 + 5 + 2)
        self.assertEqual(process.returncode, 6, errors)
        line, = [line for line in errors.splitlines() if line.startswith("longnet:")]
        self.assertRegex(line, "operation number [0-9]+ of .*, did not end within 3 s")
        self.assertRegex(line, r"stopped, gone or at work elsewhere are rank 1 on \S+")
        self.assertIn("there are rank ", line)
        self.assert_nothing_runs()

    def test_a_rank_that_is_stopped_while_evaluating_is_named(self):
        keys = ["parallel.timeout_seconds=3", "training.evaluate_every_steps=1", "training.evaluation_sequences=1000000", "training.steps=1000"]
        (self.folder / "text").write_text("a line of text\n" * 20000)
        process = subprocess.Popen(self.command(2, "train", self.config, *settings(*keys)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        metrics = self.folder / "run/metrics.jsonl"
        while not (metrics.exists() and metrics.read_text()):
            time.sleep(0.01)
        time.sleep(0.3)
        os.kill(self.ranks_of(process)[1], signal.SIGSTOP)
        begin = time.time()
        _, errors = process.communicate(timeout=60)
        self.assertLess(time.time() - begin, 3 + 5)
        self.assertEqual((process.returncode, len(self.metrics())), (6, 1), errors)
        self.assertRegex(errors, r"did not end within 3 s.*stopped, gone or at work elsewhere are rank 1 on \S+")
        self.assert_nothing_runs()

    def test_a_rank_that_never_starts_is_told(self):
        start = 'if [ "$OMPI_COMM_WORLD_RANK" = 1 ]; then kill -STOP $$; fi; exec "$0" "$@"'
        command = [*self.command(2)[:-1], "sh", "-c", start, LONGNET, "train", str(self.config)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, "LONGNET_START_TIMEOUT_SECONDS": "2"})
        self.assertEqual(result.returncode, 6, result.stderr)
        line, = [line for line in result.stderr.splitlines() if line.startswith("longnet:")]
        self.assertIn("the start of MPI did not end within 2 s", line)
        self.assert_nothing_runs()

    def test_a_script_that_is_killed_leaves_a_checkpoint_and_no_process(self):
        process = subprocess.Popen([self.SCRIPT, "2", "train", str(self.config), *self.ENDLESS], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                   env={**os.environ, "LONGNET": LONGNET})
        self.wait_for_steps(process)
        process.kill()
        process.wait()
        self.assert_nothing_runs(within=30)
        self.assertTrue(list(self.folder.glob("run/checkpoints/step-????????")))

    def test_an_interrupt_ends_what_has_nothing_to_save(self):
        self.train(1)
        process = subprocess.Popen([self.SCRIPT, "1", "generate", str(self.config), "--prompt", "x", "--tokens", "1000000"],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, "LONGNET": LONGNET})
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        self.assertEqual(process.returncode, 130)
        self.assert_nothing_runs()

    def test_a_killed_rank_is_told_by_the_script(self):
        process = subprocess.Popen([self.SCRIPT, "2", "train", str(self.config), *self.ENDLESS], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                   text=True, env={**os.environ, "LONGNET": LONGNET})
        self.wait_for_steps(process)
        os.kill(self.ranks_of_script()[1], signal.SIGKILL)
        _, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 137, errors)
        self.assertIn("mpirun.sh: a rank or mpirun was killed by SIGKILL", errors)
        self.assert_nothing_runs()

    def script(self, *arguments, program=LONGNET):
        return subprocess.Popen([self.SCRIPT, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                env={**os.environ, "LONGNET": str(program)})

    def ranks_of_script(self):
        """Process numbers of the ranks of the only training in this test's folder."""
        deadline = time.time() + 30
        while time.time() < deadline:
            ranks = [int(entry.name) for entry in Path("/proc").glob("[0-9]*")
                     if self.command_of(entry).startswith(str(LONGNET)) and str(self.folder) in self.command_of(entry)]
            if ranks:
                return ranks
            time.sleep(0.05)
        self.fail("no ranks")

    @staticmethod
    def command_of(process):
        try:
            return (process / "cmdline").read_text().replace("\0", " ")
        except OSError:
            return ""

    def test_a_killed_training_is_started_again(self):
        options = settings("training.steps=300", "checkpoint.every_steps=10", "logging.every_steps=1000")
        self.run_program(2, "train", self.config, *options, *settings(f"run={self.folder / 'undisturbed'}"))
        process = self.script("--restarts", 1, 2, "train", self.config, *options, "--resume", "auto")
        for steps in (30, 60, 90):
            deadline = time.time() + 60
            while not (self.folder / "run/metrics.jsonl").exists() or len(self.metrics()) < steps:
                self.assertTrue(process.poll() is None and time.time() < deadline, "it makes no steps")
                time.sleep(0.02)
            os.kill(self.ranks_of_script()[-1], signal.SIGKILL)
            time.sleep(1)
        output, _ = process.communicate(timeout=120)
        self.assertEqual(process.returncode, 0, output)
        self.assertEqual(output.count("starting again, from the checkpoint of step"), 3, output)
        self.assertEqual(output.count("resumed from"), 3, output)
        log = (self.folder / "run/log.txt").read_text()
        self.assertEqual(re.findall("started again: (.*)", log), [f"number {n}, after exit code 137" for n in (1, 2, 3)])
        self.assertEqual(len(re.findall(r"start-up took [\d.]+ s: libraries [\d.]+ s, MPI [\d.]+ s, configuration, data and model [\d.]+ s, "
                                        r"optimizer [\d.]+ s, checkpoint [\d.]+ s, first step [\d.]+ s\n", log)), 4, log)
        self.assertEqual(self.trajectory(self.metrics()), self.trajectory(self.metrics("undisturbed")))
        self.assert_nothing_runs()

    def test_what_is_started_again_and_what_is_not(self):
        program = self.folder / "program"
        for code, runs in ((6, 3), (75, 3), (2, 1), (4, 1), (5, 1), (0, 1)):
            (self.folder / "runs").write_text("")
            program.write_text(f"#!/bin/sh\necho run >> {self.folder}/runs\nexit {code}\n")
            program.chmod(0o755)
            process = self.script("--restarts", 2, 1, "train", "x.yaml", program=program)
            output, _ = process.communicate(timeout=60)
            self.assertEqual(process.returncode, code, output)
            self.assertEqual((self.folder / "runs").read_text().count("run"), runs, output)

    def test_a_killed_mpirun_is_started_again(self):
        """Its ranks live a moment longer, and hold the run folder."""
        options = settings("training.steps=200", "checkpoint.every_steps=1", "logging.every_steps=1000")
        process = self.script("--restarts", "01", 2, "train", self.config, *options)
        for kill in range(5):
            steps = len(self.metrics()) if kill else 0
            deadline = time.time() + 60
            while not (self.folder / "run/metrics.jsonl").exists() or len(self.metrics()) < steps + 5:
                self.assertTrue(process.poll() is None and time.time() < deadline, "it makes no steps")
                time.sleep(0.02)
            mpirun = [int(entry.name) for entry in Path("/proc").glob("[0-9]*")
                      if self.command_of(entry).split(" ")[0].endswith("mpirun") and str(self.folder) in self.command_of(entry)]
            os.kill(mpirun[0], signal.SIGKILL)
            time.sleep(1)
        output, _ = process.communicate(timeout=120)
        self.assertEqual(process.returncode, 0, output)
        self.assertEqual(output.count("starting again, from the checkpoint of step"), 5, output)
        self.assertNotIn("in use by", output)
        self.assertNotRegex(output, "line [0-9]+: .*Killed")
        self.assert_nothing_runs()

    def test_restarts_end_when_progress_ends(self):
        """Any number of them, while each start brings a checkpoint; then as many as the user said."""
        program = self.folder / "program"
        program.write_text(f"""#!/bin/sh
echo run >> {self.folder}/runs
count=$(wc -l < {self.folder}/runs)
echo "$LONGNET_RESTART" >> {self.folder}/reasons
[ "$count" -gt 4 ] || echo "$count" > "$LONGNET_SAVED_STEP_FILE"
exit 6
""")
        program.chmod(0o755)
        begin = time.time()
        process = self.script("--restarts", 2, 1, "train", "x.yaml", program=program)
        output, _ = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 6, output)
        self.assertEqual((self.folder / "runs").read_text().count("run"), 4 + 1 + 2, output)
        self.assertEqual(re.findall("from the checkpoint of step ([0-9]+)", output), ["1", "2", "3", "4"])
        self.assertEqual(re.findall("restart ([0-9]) of 2, from the newest, in ([0-9]+) s", output), [("1", "1"), ("2", "2")])
        self.assertLess(time.time() - begin, 20)
        self.assertEqual((self.folder / "reasons").read_text().splitlines(), [""] + [f"number {n}, after exit code 6" for n in range(1, 7)])

    def test_the_script_refuses_what_it_cannot_start(self):
        for arguments, program, text in ((["x", "train"], LONGNET, "RANKS is a number"), ([], LONGNET, "RANKS is a number"),
                                         (["--restarts", "-1", "2", "train"], LONGNET, "--restarts takes a number, not '-1'"),
                                         (["--restarts", "2", "2", "train", "x", "--resume", "none"], LONGNET, "start once with --resume"),
                                         (["2", "train"], self.folder / "none", f"there is no program {self.folder / 'none'}")):
            process = self.script(*arguments, program=program)
            output, _ = process.communicate(timeout=60)
            self.assertEqual(process.returncode, 2, output)
            self.assertIn(text, output)

    def test_nothing_is_left_in_shared_memory(self):
        def segments():
            return set(Path("/dev/shm").glob("longnet-mpi-*"))
        before = segments()
        process = self.script(2, "train", self.config, *self.ENDLESS)
        self.wait_for_steps(process)
        self.assertEqual(len(segments() - before), 1)
        process.kill()
        process.wait()
        for rank in self.ranks_of_script():
            os.kill(rank, signal.SIGKILL)
        self.assert_nothing_runs(within=30)
        self.assertEqual(len(segments() - before), 1, "nobody could remove it")
        after = self.script(1, "train", self.config, *settings("training.steps=1", f"run={self.folder / 'next'}"))
        output, _ = after.communicate(timeout=60)
        self.assertEqual(after.returncode, 0, output)
        self.assertEqual(segments() - before, set())


if __name__ == "__main__":
    main()
