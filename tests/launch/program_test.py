"""The program as a user runs it: mpirun, files, exit codes, what it prints. Needs only Python's standard library.

    program_test.py LONGNET MPIRUN [unittest arguments]
"""

import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import tempfile
import time
from pathlib import Path

from harness import LONGNET, MPIRUN, ProgramTest, main, settings

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

METRICS = ["step", "loss", "gradient_norm", "learning_rate", "tokens", "seconds", "tokens_per_second",
           "peak_memory_bytes", "exchange_bytes", "skipped", "failed_saves"]


class Program(ProgramTest):
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

    # Training and its run folder

    def test_a_run_leaves_its_folder(self):
        result = self.train(2)
        self.assertIn("2 ranks = 1 data x 2 sequence, with 1 threads each", result.stdout)
        self.assertIn("finished step 6 of 6", result.stdout)
        self.assertNotIn("\r", result.stdout, "no progress bar without a terminal")
        run = self.folder / "run"
        self.assertEqual(sorted(p.name for p in (run / "checkpoints").iterdir()), ["step-00000003", "step-00000006"])
        self.assertIn("finished", (run / "log.txt").read_text())
        metrics = self.metrics()
        self.assertEqual([line["step"] for line in metrics], [1, 2, 3, 4, 5, 6])
        self.assertEqual(list(metrics[0]), METRICS)
        self.assertEqual(metrics[2]["tokens"], 3 * 4 * 64)
        self.assertGreater(metrics[0]["peak_memory_bytes"], 1 << 20)
        self.assertGreater(metrics[0]["exchange_bytes"], 0)
        # What it wrote as its configuration is a configuration, and the same one.
        self.config.write_text((run / "config.yaml").read_text())
        self.train(2)

    def test_the_manifest_is_what_the_design_says(self):
        self.train(2)
        checkpoint = self.folder / "run/checkpoints/step-00000006"
        manifest = json.loads((checkpoint / "manifest.json").read_text())
        self.assertEqual(list(manifest), ["format", "version", "step", "tokens", "samples", "updates", "seed", "mesh", "program",
                                          "config", "data", "files", "tensors", "xxh3_128"])
        self.assertEqual((manifest["step"], manifest["tokens"], manifest["samples"]), (6, 6 * 4 * 64, 24))
        self.assertEqual(manifest["mesh"], {"data": 1, "sequence": 2})
        self.assertEqual(sorted(manifest["files"]), [f"shard-0000{i}-of-00002.safetensors" for i in range(2)])
        for name, file in manifest["files"].items():
            self.assertEqual((checkpoint / name).stat().st_size, file["bytes"])
            self.assertRegex(file["xxh3_128"], "^[0-9a-f]{32}$")
        for name, tensor in manifest["tensors"].items():
            size, covered = 1, 0
            for extent in tensor["shape"]:
                size *= extent
            for part in tensor["ranges"]:
                self.assertEqual(part["begin"], covered)
                covered = part["end"]
            self.assertEqual(covered, size, name)
        self.assertIn("optimizer.exp_avg_sq.layers.1.ffn.fc2.bias", manifest["tensors"])

    def test_old_checkpoints_go(self):
        self.train(1, "checkpoint.every_steps=1", "checkpoint.keep=2")
        names = sorted(p.name for p in (self.folder / "run/checkpoints").iterdir())
        self.assertEqual(names, ["step-00000005", "step-00000006"])

    def test_tensorboard_reads_the_events(self):
        self.train(1)
        try:
            from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        except ImportError as error:
            self.fail(f"the tensorboard package is needed: {error}")
        events = EventAccumulator(str(self.folder / "run"))
        events.Reload()
        losses = [(event.step, event.value) for event in events.Scalars("loss")]
        expected = [(line["step"], line["loss"]) for line in self.metrics()]
        self.assertEqual([step for step, _ in losses], [step for step, _ in expected])
        for (_, actual), (_, loss) in zip(losses, expected):
            self.assertAlmostEqual(actual, loss, places=5)

    def test_a_bar_on_a_terminal(self):
        master, slave = pty.openpty()
        process = subprocess.Popen([LONGNET, "train", str(self.config)], stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        output = b""
        while True:
            try:
                piece = os.read(master, 4096)
            except OSError:
                break
            if not piece:
                break
            output += piece
        os.close(master)
        self.assertEqual(process.wait(timeout=60), 0, output)
        text = output.decode(errors="replace")
        self.assertRegex(text, r"\r\033\[K\[[#.]+\] step 6/6  loss \d")
        self.assertIn("tokens/s", text)
        self.assertIn("left", text)
        self.assertIn("finished step 6 of 6", text)
        self.assertIn("step 6/6", (self.folder / "run/log.txt").read_text())

    # Going on

    def test_a_resumed_run_is_the_uninterrupted_one_to_the_last_bit(self):
        self.train(2)
        whole = self.trajectory(self.metrics())
        shutil.rmtree(self.folder / "run/checkpoints/step-00000006")
        result = self.train(2)
        self.assertIn("resumed from", result.stdout)
        self.assertEqual(self.trajectory(self.metrics()), whole)

    def test_the_meshs_shape_changes_nothing(self):
        self.train(1, "training.precision=fp64", f"run={self.folder}/one")
        self.train(4, "training.precision=fp64", "parallel.sequence=2", f"run={self.folder}/four")
        for one, four in zip(self.metrics("one"), self.metrics("four")):
            self.assertAlmostEqual(one["loss"], four["loss"], delta=1e-10 * one["loss"])

    def test_resume_from_a_named_checkpoint_and_at_another_rank_count(self):
        self.train(2)
        whole = self.metrics()
        result = self.train(3, f"run={self.folder}/other", resume=self.folder / "run/checkpoints/step-00000003")
        self.assertIn("at step 3", result.stdout)
        other = self.metrics("other")
        self.assertEqual([line["step"] for line in other], [4, 5, 6])
        for line, reference in zip(other, whole[3:]):
            self.assertAlmostEqual(line["loss"], reference["loss"], delta=1e-4)

    def test_resume_none_does_not_mix_runs(self):
        self.train(1, resume="none")
        self.expect_error(2, "holds checkpoints", 1, "train", self.config, "--resume", "none")

    def test_a_damaged_checkpoint_is_passed_over(self):
        self.train(2)
        whole = self.trajectory(self.metrics())
        shard = self.folder / "run/checkpoints/step-00000006/shard-00001-of-00002.safetensors"
        data = bytearray(shard.read_bytes())
        data[-1] ^= 1
        shard.write_bytes(data)
        self.expect_error(4, "damaged", 2, "eval", self.config, "--checkpoint", shard.parent)
        result = self.train(2)
        self.assertIn("trying an older checkpoint", result.stdout)
        self.assertIn("at step 3", result.stdout)
        self.assertEqual(self.trajectory(self.metrics()), whole)

    def test_an_unfinished_checkpoint_is_none(self):
        self.train(2)
        (self.folder / "run/checkpoints/step-00000006/manifest.json").unlink()
        self.assertIn("at step 3", self.train(2).stdout)

    def test_a_checkpoint_of_another_model_is_refused(self):
        self.train(2)
        for key, before, now in (("model.feed_forward", "32", "48"), ("model.layers", "2", "3"), ("model.heads", "4", "8"),
                                 ("model.positions", '"rope"', '"none"'), ("model.attention.segments", "[16,64]", "[16,32]")):
            for command in (["train"], ["eval", "--contexts", "64"], ["generate", "--prompt", "x"], ["attend", "--queries", "3"]):
                ranks = 1 if command[0] == "generate" else 2
                self.expect_error(2, f"{key} is {now}, but the weights of {self.folder}/run/checkpoints/step-00000006 were trained with "
                                  f"{before}", ranks, command[0], self.config, *command[1:], "--set", f"{key}={now}")
        self.expect_error(2, "mean nothing without", 1, "train", self.config, "--set", "model.heads=8", "--allow-change", "model.heads")
        result = self.run_program(1, "train", self.config, *settings("training.precision=fp64", "training.steps=8"), code=2)
        self.assertIn("set training.precision as it was", result.stderr)
        self.assertNotIn("trying an older checkpoint", result.stdout, "no other is better")
        self.expect_error(4, "no manifest.json", 1, "train", self.config, "--resume", self.folder / "nowhere")

    def test_what_a_resumed_run_does_otherwise_is_told_or_refused(self):
        self.train(2)
        for change, text in (("training.seed=4", "training.seed is 4, not 3 as in"),
                             ("data.sequence_length=32", "data.sequence_length is 32, not 64")):
            self.expect_config_error(2, text, change, "training.steps=8")
        result = self.train(2, "training.steps=7", "optimizer.learning_rate=0.02", "model.dropout=0", "training.batch_size=8")
        self.assertIn("changed since the checkpoint: ", result.stdout)
        for change in ("model.dropout 0.1 -> 0", "optimizer.learning_rate 0.01 -> 0.02", "training.steps 6 -> 7", "training.batch_size 4 -> 8"):
            self.assertIn(change, result.stdout)
        result = self.run_program(2, "train", self.config, *settings("training.seed=4", "training.steps=8"), "--allow-change", "training.seed")
        self.assertIn("training.seed 3 -> 4", result.stdout)
        self.assertNotIn("changed since", self.train(2, "training.seed=4", "training.steps=8").stdout)

    def test_other_data_are_no_continuation(self):
        self.train(2)
        with open(self.folder / "text", "a") as text:
            text.write("one line more\n")
        self.expect_config_error(2, "the data are not those of")
        self.expect_config_error(2, "the data are not those of", "training.steps=8")
        result = self.run_program(2, "train", self.config, "--set", "training.steps=7", "--allow-change", "data")
        self.assertIn("data (other files, or another part of them)", result.stdout)
        self.assertIn("held-out data (other files, or another part of them)", result.stdout)
        result = self.run_program(2, "eval", self.config, *settings(f"data.validation=[{self.folder}/text]"))
        self.assertIn("1 of the files of data.validation are among those of data.train, too", result.stderr)
        self.assertIn("training.precision \"fp32\" -> \"bf16\"",
                      self.run_program(2, "eval", self.config, "--contexts", "64", *settings("training.precision=bf16")).stderr)
        for command in (["eval", "--contexts", "64"], ["attend", "--queries", "3"]):
            result = self.run_program(2, command[0], self.config, *command[1:], "--set", "data.validation_fraction=0.5")
            self.assertIn("warning: the data to train on are not those of", result.stderr)
            self.assertNotIn("warning", self.run_program(2, command[0], self.config, *command[1:]).stderr)

    def test_a_file_may_have_another_name(self):
        self.train(2)
        (self.folder / "text").rename(self.folder / "renamed")
        self.train(2, f"data.train=[{self.folder}/renamed]", "training.steps=7")

    def test_going_back_leaves_the_later_checkpoints_out_of_account(self):
        self.train(1, "checkpoint.every_steps=2", "checkpoint.keep=3")
        checkpoints = self.folder / "run/checkpoints"
        first = self.trajectory(self.metrics())
        result = self.train(1, "training.steps=5", "checkpoint.every_steps=1", "checkpoint.keep=2", resume=checkpoints / "step-00000002")
        self.assertIn("set aside", result.stdout)
        self.assertEqual(sorted(path.name for path in checkpoints.iterdir()),
                         ["abandoned-step-00000004", "abandoned-step-00000006", "step-00000004", "step-00000005"])
        self.assertEqual([line["step"] for line in self.metrics()], [1, 2, 3, 4, 5])
        kept, = self.folder.glob("run/metrics.abandoned-after-step-2*")
        self.assertEqual(self.trajectory([json.loads(line) for line in kept.read_text().splitlines()]), first)
        for name in ("step-00000007", "step-00000008"):
            (checkpoints / name).mkdir()
        result = self.train(1, "training.steps=6")
        self.assertIn("at step 5", result.stdout)
        self.assertEqual(result.stdout.count("passed over"), 2, "two that count, two set aside, two that are none")

    def test_going_over_to_a_branch_that_was_left_leaves_the_other(self):
        self.train(1, "checkpoint.every_steps=2")
        checkpoints = self.folder / "run/checkpoints"
        first = self.trajectory(self.metrics())
        self.train(1, "checkpoint.every_steps=2", "training.steps=4", "optimizer.learning_rate=0.02", resume=checkpoints / "step-00000002")
        second = self.metrics()
        result = self.train(1, "training.steps=4", resume=checkpoints / "abandoned-step-00000004")
        self.assertIn("set aside", result.stdout)
        self.assertEqual(sorted(path.name for path in checkpoints.iterdir()),
                         ["abandoned-step-00000002", "abandoned-step-00000004", "abandoned-step-00000004-2", "abandoned-step-00000006",
                          "step-00000004"])
        kept, = self.folder.glob("run/metrics.abandoned.jsonl")
        self.assertEqual([json.loads(line) for line in kept.read_text().splitlines()], second)
        self.assertIn("at step 4", self.train(1).stdout)
        self.assertEqual(self.trajectory(self.metrics()), first[4:], "it is the first branch that goes on")

    def test_what_cannot_be_gone_over_to_leaves_the_branch_in_force(self):
        disk = self.on_a_small_disk("4m")
        self.train(1, f"run={self.folder}/run")
        self.train(1, f"run={disk}/run", "training.steps=3")
        self.fill(disk)
        self.run_program(1, "train", self.config, *settings(f"run={disk}/run", "training.steps=8"), "--resume",
                         self.folder / "run/checkpoints/step-00000006", code=4)
        (disk / "filler").unlink()
        self.assertEqual([path.name for path in (disk / "run/checkpoints").iterdir()], ["step-00000003"])
        self.assertIn("at step 3", self.train(1, f"run={disk}/run").stdout)

    def test_what_is_resumed_is_saved_even_if_nothing_is_left_to_do(self):
        self.train(2)
        last = self.folder / "run/checkpoints/step-00000006"
        other = f"run={self.folder}/other"
        result = self.train(2, other, resume=last)
        self.assertIn("saved as", result.stdout)
        self.assertIn("finished step 6 of 6", result.stdout)
        self.assertIn("at step 6", self.train(2, other, "training.steps=7").stdout)
        self.assertIn("at step 6", self.train(2, other, "training.steps=7", resume=last).stdout)
        names = sorted(path.name for path in (self.folder / "other/checkpoints").iterdir())
        self.assertEqual(names, ["abandoned-step-00000006", "abandoned-step-00000007", "step-00000006", "step-00000007"])

    def test_fewer_steps_than_are_done_change_nothing(self):
        self.train(1, "checkpoint.every_steps=2")
        self.expect_error(2, "training.steps is 3, but", 1, "train", self.config, *settings("training.steps=3"))
        self.expect_error(2, "training.steps is 3, but", 1, "train", self.config, *settings("training.steps=3"),
                          "--resume", self.folder / "run/checkpoints/step-00000004")
        names = sorted(path.name for path in (self.folder / "run/checkpoints").iterdir())
        self.assertEqual(names, ["step-00000002", "step-00000004", "step-00000006"])
        self.assertEqual(len(self.metrics()), 6)

    def test_a_run_folder_with_something_like_a_checkpoint_does_not_start_anew(self):
        self.train(2)
        checkpoints = self.folder / "run/checkpoints"
        for manifest in checkpoints.glob("*/manifest.json"):
            data = bytearray(manifest.read_bytes())
            data[0] ^= 1
            manifest.write_bytes(data)
        line = self.expect_error(4, "holds no checkpoint that can be used", 2, "train", self.config)
        self.assertIn("manifest.json: is damaged", line)
        self.assertEqual(len(self.metrics()), 6, "metrics are as they were")
        for checkpoint in checkpoints.iterdir():
            checkpoint.rename(checkpoints / ("abandoned-" + checkpoint.name))
        self.expect_error(4, "was set aside", 2, "train", self.config)

    def test_a_signal_saves_and_asks_to_be_requeued(self):
        command = self.command(2, "train", self.config, "--set", "training.steps=100000", "--set", "checkpoint.every_steps=0")
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        metrics = self.folder / "run/metrics.jsonl"
        for _ in range(600):
            if metrics.exists() and metrics.read_text().count("\n") > 2:
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGUSR1)
        output, _ = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 75, output)
        self.assertIn("stopped on request", output)
        steps = len(self.metrics())
        self.assertEqual([p.name for p in (self.folder / "run/checkpoints").iterdir()], [f"step-{steps:08d}"])

    def interrupt(self, command, *signals, environment=None):
        """The exit code and output of an endless training that gets these signals once it has made some steps."""
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                   env={**os.environ, "LONGNET": LONGNET, **(environment or {})})
        metrics = self.folder / "run/metrics.jsonl"
        for _ in range(600):
            if process.poll() is not None or metrics.exists() and metrics.read_text().count("\n") > 2:
                break
            time.sleep(0.1)
        for number in signals:
            process.send_signal(number)
            time.sleep(0.3)
        output, _ = process.communicate(timeout=60)
        self.assert_nothing_runs()
        return process.returncode, output

    ENDLESS = settings("training.steps=1000000", "logging.every_steps=1000000")
    SCRIPT = str(Path(__file__).resolve().parents[2] / "launch/mpirun.sh")

    def test_a_signal_while_the_program_starts_is_kept(self):
        for command in ([self.SCRIPT, "2"], [LONGNET]):
            for delay in (0.03, 0.1, 0.2, 0.4, 0.7, 1.0):
                process = subprocess.Popen([*command, "train", str(self.config), *self.ENDLESS], stdout=subprocess.PIPE,
                                           stderr=subprocess.STDOUT, text=True, env={**os.environ, "LONGNET": LONGNET})
                time.sleep(delay)
                process.send_signal(signal.SIGTERM)
                output, _ = process.communicate(timeout=60)
                self.assertEqual(process.returncode, 75, f"after {delay} s: {output}")
                self.assertIn("the checkpoint is saved", output)
                self.assert_nothing_runs()
                shutil.rmtree(self.folder / "run")

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
        # A step that takes minutes, so that the first interrupt alone would not end it.
        slow = settings("training.steps=9", "data.sequence_length=32768", "model.width=256", "model.layers=8", "data.validation_fraction=0",
                        "training.batch_size=64", "model.feed_forward=1024")
        (self.folder / "text").write_text("a line of text\n" * 4000)
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

    def test_time_makes_checkpoints(self):
        self.train(2, "training.steps=400", "checkpoint.every_steps=0", "checkpoint.every_minutes=0.005", "checkpoint.keep=100")
        names = [path.name for path in (self.folder / "run/checkpoints").iterdir()]
        self.assertGreater(len(names), 2)
        self.assertIn("step-00000400", names)

    # A disk that is full

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

    def test_a_start_on_a_full_disk_destroys_nothing(self):
        disk = self.on_a_small_disk("4m")
        self.train(1, f"run={disk}/run", "training.steps=40", "checkpoint.every_steps=0")
        self.fill(disk)
        before = (disk / "run/metrics.jsonl").read_bytes(), (disk / "run/config.yaml").read_bytes()
        result = self.run_program(1, "train", self.config, *settings(f"run={disk}/run", "training.steps=42", "checkpoint.every_steps=0"), code=4)
        self.assertIn("a checkpoint takes", result.stderr)
        self.assertIn("config.yaml stays as it was", result.stdout)
        self.assertTrue((disk / "run/metrics.jsonl").read_bytes().startswith(before[0]))
        self.assertEqual((disk / "run/config.yaml").read_bytes(), before[1])
        (disk / "filler").unlink()
        self.train(1, f"run={disk}/run", "training.steps=42", "checkpoint.every_steps=0")
        self.assertEqual([line["step"] for line in self.metrics(f"{disk}/run")], list(range(1, 43)))

    def test_a_disk_that_is_full_for_a_while_loses_no_line(self):
        disk = self.on_a_small_disk("8m")
        process = subprocess.Popen([LONGNET, "train", str(self.config), *settings(f"run={disk}/run", "training.steps=3000", "checkpoint.every_steps=0",
                                    "logging.every_steps=100")], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        metrics = disk / "run/metrics.jsonl"
        while process.poll() is None and not (metrics.exists() and metrics.stat().st_size > 10000):
            time.sleep(0.02)
        self.fill(disk)
        size = metrics.stat().st_size
        time.sleep(1)
        self.assertLess(metrics.stat().st_size - size, 4096, "the disk was full in time")
        (disk / "filler").unlink()
        output, _ = process.communicate(timeout=120)
        self.assertEqual(process.returncode, 0, output)
        self.assertEqual([line["step"] for line in self.metrics(f"{disk}/run")], list(range(1, 3001)))
        for name in ("metrics.jsonl", "events.out.tfevents", "log.txt"):
            self.assertLessEqual(len(re.findall(rf"warning: .*{name}.*cannot be written", output)), 1, "said once")
        self.assertIn("metrics.jsonl: can be written again", output)
        self.assertIn("step 3000/3000", (disk / "run/log.txt").read_text())

    def test_a_run_folder_has_one_job(self):
        first = subprocess.Popen(self.command(2, "train", self.config, *self.ENDLESS), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        metrics = self.folder / "run/metrics.jsonl"
        while not (metrics.exists() and metrics.read_text().count("\n") > 2):
            time.sleep(0.02)
        result = self.run_program(2, "train", self.config, code=2)
        self.assertIn("the run folder is in use by process", result.stderr)
        self.run_program(1, "eval", self.config, "--checkpoint", "none", "--contexts", "64")
        first.send_signal(signal.SIGUSR1)
        output, _ = first.communicate(timeout=60)
        self.assertEqual(first.returncode, 75, output)
        self.assertEqual([line["step"] for line in self.metrics()], list(range(1, len(self.metrics()) + 1)))
        self.assertFalse((self.folder / "run/lock").exists())

    def test_a_killed_job_leaves_nothing_behind(self):
        process = subprocess.Popen([LONGNET, "train", str(self.config), *self.ENDLESS, "--set", "checkpoint.every_steps=1"],
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        checkpoints = self.folder / "run/checkpoints"
        while not (checkpoints.exists() and list(checkpoints.glob("step-????????"))):
            time.sleep(0.02)
        process.kill()
        process.communicate()
        (checkpoints / "step-00000099.partial-17").mkdir()
        steps = int(max(path.name for path in checkpoints.glob("step-????????"))[5:])
        result = self.train(1, f"training.steps={steps + 1}")
        self.assertIn("the run folder's last job did not end by itself", result.stdout)
        self.assertIn("step-00000099.partial-17", result.stdout)
        self.assertEqual([], [path for path in (self.folder / "run").rglob("*") if "partial" in path.name or path.name == "lock"])

    def test_a_save_that_fails_is_tried_again(self):
        disk = self.on_a_small_disk("8m")
        options = settings(f"run={disk}/run", "training.steps=100000", "checkpoint.every_steps=20", "logging.every_steps=1000")
        process = subprocess.Popen([LONGNET, "train", str(self.config), *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        checkpoints = disk / "run/checkpoints"
        metrics = disk / "run/metrics.jsonl"

        def wait_for(condition):
            deadline = time.time() + 60
            while process.poll() is None and not condition() and time.time() < deadline:
                time.sleep(0.02)
            self.assertTrue(condition())

        wait_for(lambda: checkpoints.exists() and list(checkpoints.glob("step-????????")))
        self.fill(disk)
        # Metrics need room, too, and lie on the same disk: make room for them alone.
        with open(disk / "filler", "r+") as filler:
            filler.truncate((disk / "filler").stat().st_size - (128 << 10))
        wait_for(lambda: '"failed_saves":1' in metrics.read_text())
        kept = {path.name for path in checkpoints.iterdir()}
        self.assertTrue(kept and all(re.fullmatch("step-[0-9]{8}", name) for name in kept), kept)
        (disk / "filler").unlink()
        wait_for(lambda: {path.name for path in checkpoints.glob("step-????????")} - kept)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 75, output)
        self.assertRegex(output, r"warning: step \d+ is not saved: .*(free|No space left)")
        self.fill(disk)
        result = self.run_program(1, "train", self.config, *options, "--set", "checkpoint.on_failure=stop", code=4)
        self.assertIn("a checkpoint takes", result.stderr)

    def test_a_run_folder_that_can_never_be_written_is_refused_at_once(self):
        (self.folder / "file").write_text("")
        self.expect_config_error(2, "cannot be created: Not a directory", f"run={self.folder}/file/run")
        disk = self.on_a_small_disk("1m")
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        self.expect_config_error(2, "Read-only file system", f"run={disk}/run")

    def test_results_that_cannot_be_written_are_no_success(self):
        self.train(1)
        for command in (["eval", self.config, "--contexts", "64"], ["generate", self.config, "--prompt", "x"], ["--help"]):
            with open("/dev/full", "w") as full:
                result = subprocess.run([LONGNET, *map(str, command)], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
            self.assertEqual(result.returncode, 1, result.stderr)
            self.assertEqual(result.stderr.splitlines(), ["longnet: standard output cannot be written: what was printed is incomplete"])

    # Evaluation and generation

    def test_eval_prints_a_line_for_each_context(self):
        self.train(2)
        tables = []
        for ranks in (1, 2):
            output = self.run_program(ranks, "eval", self.config, "--contexts", "16,64", "--tokens", "512").stdout
            rows = [line.split() for line in output.splitlines() if re.match(r" +\d", line)]
            self.assertEqual([row[:2] for row in rows], [["16", "512"], ["64", "512"]])
            for row in rows:
                self.assertAlmostEqual(float(row[4]), float(row[2]) / 0.693147, places=3)
            self.assertIn("bits/byte", output)
            tables.append([float(row[2]) for row in rows])
        for one, two in zip(*tables):
            self.assertAlmostEqual(one, two, places=3)

    def test_generate_continues_the_prompt(self):
        self.train(1)
        def sample(*options):
            return self.run_program(1, "generate", self.config, "--prompt", "line 1", "--tokens", "100", *options).stdout
        first = sample("--seed", "4")
        self.assertTrue(first.startswith("line 1"))
        self.assertEqual(len(first), len("line 1") + 100 + 1)
        self.assertEqual(first, sample("--seed", "4"))
        self.assertNotEqual(first, sample("--seed", "5"))
        self.assertEqual(sample("--temperature", "0"), sample("--top-k", "1", "--seed", "9"))
        (self.folder / "text").unlink()
        self.assertEqual(first, sample("--seed", "4"), "the data are not needed")

    def test_token_files_train_and_generate_numbers(self):
        header = [20240520, 1, 3000] + [0] * 253
        tokens = [i * i % 100 for i in range(3000)]
        (self.folder / "tokens.bin").write_bytes(struct.pack("<256i", *header) + struct.pack("<3000H", *tokens))
        data = [f"data.train=[{self.folder}/tokens.bin]", "data.type=tokens"]
        self.train(2, *data)
        output = self.run_program(1, "generate", self.config, "--prompt", "4 9 16", "--tokens", "5", *settings(*data)).stdout
        self.assertRegex(output, r"^4 9 16 (\d+ ){5}\n$")
        self.expect_error(2, "want numbers", 1, "generate", self.config, "--prompt", "four", *settings(*data))

    def test_generate_refuses_what_it_cannot_do(self):
        self.train(1)
        base = ["generate", self.config, "--prompt"]
        self.expect_error(2, "one rank", 2, *base, "x")
        self.expect_error(2, "empty", 1, *base, "")
        self.expect_error(2, "outside the vocabulary", 1, *base, "ä")
        self.expect_error(2, "--top-p", 1, *base, "x", "--top-p", "0")

    def test_without_a_checkpoint_there_is_nothing_to_evaluate(self):
        self.expect_error(4, "holds no checkpoint", 2, "eval", self.config)
        self.train(1)
        self.expect_error(3, "too few", 2, "eval", self.config, "--contexts", "100000")

    # Bad input

    def test_help_has_examples_and_usage_errors_are_one_line(self):
        output = self.run_program(2, "--help").stdout
        self.assertEqual(output.count("mpirun -np 2 longnet train configs/quickstart.yaml\n"), 1, "printed once")
        self.run_program(1, "train", "--help")
        self.expect_error(2, "see longnet --help", 2, "train")
        self.expect_error(2, "unknown command 'dance'; see longnet --help", 1, "dance")
        self.expect_error(2, "did you mean 'import'?", 1, "checkpoint", "imprt")
        self.expect_error(2, "see longnet --help", 1, "train", self.config, "--no-such-option")

    def test_configuration_errors(self):
        self.config.write_text(self.config.read_text() + "optimiser: {}\n")
        line = self.expect_config_error(2, "did you mean 'optimizer'")
        self.assertIn(f"{self.config}:16:1: ", line)
        self.config.write_text(CONFIG.format(folder=self.folder))
        self.expect_config_error(2, "whole number", "training.steps=many")
        self.expect_config_error(2, "whole number", "training.steps=+-5")
        self.expect_config_error(2, "2 segments but 1 rates", "model.attention.rates=[1]")
        self.expect_config_error(2, "segment 0", "model.attention.segments=[0, 64]")
        self.expect_config_error(2, "rate 0", "model.attention.rates=[0, 2]")
        self.expect_config_error(2, "does not divide the width", "model.heads=3")
        self.expect_error(2, "No such file", 2, "train", self.folder / "none.yaml")

    def test_mesh_errors(self):
        self.expect_config_error(2, "parallel.sequence is 2, but the job has 3 ranks", "parallel.sequence=2", ranks=3)
        self.expect_config_error(2, "no multiple of 2", "training.batch_size=3", "parallel.sequence=1")
        self.expect_config_error(2, "parallel.transport is aligned", "parallel.transport=aligned", "data.sequence_length=63")

    def test_data_errors(self):
        self.expect_config_error(3, "no such file", f"data.train=[{self.folder}/gone]")
        (self.folder / "empty").write_text("")
        self.expect_config_error(3, "the file is empty", f"data.train=[{self.folder}/empty]")
        self.expect_config_error(3, "too few for one sequence", "data.sequence_length=1000000")
        self.expect_error(3, "but model.vocabulary is 100", 1, "train", self.config, "--set", "model.vocabulary=100")

    def test_foreign_files_are_no_tokens(self):
        (self.folder / "t.bin").write_bytes(struct.pack("<5000i", *[70000] * 5000))
        (self.folder / "README").write_text("# A text of even size\n" * 100)
        for name in ("t.bin", "README"):
            self.expect_config_error(3, "no header that says how its tokens are stored", "data.type=tokens", f"data.train=[{self.folder}/{name}]",
                                     "model.vocabulary=100000")
        data = ["data.type=tokens", f"data.train=[{self.folder}/t.bin]", "model.vocabulary=100000"]
        self.expect_config_error(3, "twice as many bits", *data, "data.token_type=uint16")
        self.train(1, *data, "data.token_type=int32", "training.steps=1")

    def test_odd_configuration_files(self):
        self.expect_error(2, "is no regular file", 2, "train", self.folder)
        os.mkfifo(self.folder / "pipe")
        self.expect_error(2, "is no regular file", 2, "train", self.folder / "pipe")
        bomb = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}, *a{i - 1}]\n" for i in range(1, 30))
        self.config.write_text(bomb)
        self.expect_error(2, "aliases", 2, "train", self.config)
        self.config.write_text(CONFIG.format(folder=self.folder) + "---\nrun: other\n")
        self.expect_error(2, "more than one document", 2, "train", self.config)

    def test_a_mistake_in_one_ranks_command_line_ends_all(self):
        for other, text in (("trian", "rank 1: unknown command 'trian'; did you mean 'train'?"), ("eval", "have a different command: 'train' and 'eval'")):
            command = [MPIRUN, "--oversubscribe", "-np", "1", LONGNET, "train", str(self.config), ":", "-np", "1", LONGNET, other, str(self.config)]
            result = subprocess.run(command, capture_output=True, text=True, timeout=30)
            self.assertEqual(result.returncode, 2, result.stderr)
            lines = [line for line in result.stderr.splitlines() if line.startswith("longnet:")]
            self.assertEqual(len(lines), 1, result.stderr)
            self.assertIn(text, lines[0])
            self.assert_nothing_runs()

    def test_far_too_many_threads_are_refused(self):
        self.expect_config_error(2, "parallel.threads is 100000, but the host has", "parallel.threads=100000")

    def test_threads_are_what_a_rank_may_use(self):
        self.config.write_text(self.config.read_text().replace("parallel: {threads: 1}", "parallel: {}"))
        def threads(*prefix, **environment):
            output = subprocess.run([*prefix, LONGNET, "train", str(self.config), "--set", "training.steps=1", "--set", f"run={tempfile.mkdtemp(dir=self.folder)}"],
                                    capture_output=True, text=True, timeout=60, env={**os.environ, **environment}).stdout
            return int(re.search(r"with (\d+) threads each", output).group(1))
        allowed = sorted(os.sched_getaffinity(0))
        self.assertEqual(threads("taskset", "-c", str(allowed[0])), 1)
        self.assertEqual(threads(OMP_NUM_THREADS="1"), 1)
        self.assertEqual(threads(SLURM_CPUS_PER_TASK="1"), 1)
        self.assertLessEqual(threads(), len(allowed))

    def test_an_error_of_one_rank_ends_all(self):
        line = "vocabulary is 100"
        result = self.run_program(2, "train", self.config, "--set", "model.vocabulary=100", code=3)
        self.assertIn(line, result.stderr)
        self.assert_nothing_runs()

    def ranks_of(self, process):
        """The ranks' process numbers, in the order in which mpirun started them."""
        deadline = time.time() + 30
        while time.time() < deadline:
            children = [int(pid) for task in Path(f"/proc/{process.pid}/task").glob("*/children") for pid in task.read_text().split()]
            if children and all(b"longnet" in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children):
                return children
            time.sleep(0.02)
        self.fail("no ranks")

    def test_a_stopped_rank_is_named(self):
        command = self.command(3, "train", self.config, *self.ENDLESS, "--set", "parallel.timeout_seconds=3")
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        metrics = self.folder / "run/metrics.jsonl"
        while not (metrics.exists() and metrics.read_text().count("\n") > 2):
            time.sleep(0.02)
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
        metrics = self.folder / "run/metrics.jsonl"
        while not (metrics.exists() and metrics.read_text().count("\n") > 2):
            time.sleep(0.02)
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
        metrics = self.folder / "run/metrics.jsonl"
        while not (metrics.exists() and metrics.read_text().count("\n") > 2):
            time.sleep(0.02)
        mpirun, = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
        ranks = [int(pid) for task in Path(f"/proc/{mpirun}/task").glob("*/children") for pid in task.read_text().split()]
        os.kill(ranks[1], signal.SIGKILL)
        _, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 137, errors)
        self.assertIn("mpirun.sh: a rank was killed by SIGKILL", errors)
        self.assert_nothing_runs()

    def test_ranks_with_different_configurations(self):
        other = self.folder / "other.yaml"
        other.write_text(self.config.read_text().replace("warmup_steps: 2", "warmup_steps: 1"))
        command = [MPIRUN, "--oversubscribe", "-np", "1", LONGNET, "train", str(self.config), ":", "-np", "1", LONGNET, "train", str(other)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60)
        self.assertEqual(result.returncode, 2, result.stderr)
        lines = [line for line in result.stderr.splitlines() if line.startswith("longnet:")]
        self.assertEqual(len(lines), 1, result.stderr)
        self.assertIn("different configuration: 'warmup_steps: 2' and 'warmup_steps: 1'", lines[0])
        self.assert_nothing_runs()

    def test_an_uncovered_mixture_is_a_warning(self):
        result = self.train(1, "model.attention={segments: [16, 64], rates: [2, 4]}")
        self.assertIn("leaves queries without any key", result.stdout)

    def test_divergence_ends_with_its_code(self):
        self.expect_config_error(5, "not finite in 3 steps in a row", "optimizer.learning_rate=1e38", "optimizer.warmup_steps=0",
                                 "training.skipped_steps_limit=3", "training.steps=100")
        skipped = [line for line in self.metrics() if line["skipped"]]
        self.assertEqual(len(skipped), 3)
        self.assertTrue(any(line["loss"] is None or line["gradient_norm"] is None for line in skipped))


if __name__ == "__main__":
    main()
