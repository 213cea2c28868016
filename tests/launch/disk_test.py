"""What becomes of a run when its disk is full or another job is in its folder, and of results that cannot be written.

    disk_test.py LONGNET MPIRUN [unittest arguments]
"""

import os
import re
import shutil
import signal
import subprocess
import time

from harness import LONGNET, SmallTraining, main, settings


class Disk(SmallTraining):
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
        self.wait_for_steps(first)
        result = self.run_program(2, "train", self.config, code=2)
        self.assertIn("the run folder is in use by process", result.stderr)
        self.run_program(1, "eval", self.config, "--checkpoint", "none", "--contexts", "64")
        first.send_signal(signal.SIGUSR1)
        output, _ = first.communicate(timeout=60)
        self.assertEqual(first.returncode, 75, output)
        self.assertEqual([line["step"] for line in self.metrics()], list(range(1, len(self.metrics()) + 1)))
        self.assertFalse((self.folder / "run/lock").exists())

    def test_what_somebody_removes_is_told_and_made_again(self):
        process = subprocess.Popen([LONGNET, "train", str(self.config), *self.ENDLESS], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.wait_for_steps(process)
        (self.folder / "run/lock").unlink()
        (self.folder / "run/metrics.jsonl").unlink()
        self.wait_for_steps(process)
        os.truncate(self.folder / "run/metrics.jsonl", 0)
        self.wait_for_steps(process)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 75, output)
        self.assertEqual(output.count("metrics.jsonl: was removed, moved or cut by somebody"), 2, output)
        self.assertIn("the run folder's lock was removed by somebody; it is there again", output)
        last = self.metrics()[-1]["step"]
        self.assertTrue((self.folder / f"run/checkpoints/step-{last:08d}/manifest.json").exists())
        self.assertFalse((self.folder / "run/lock").exists())

    def test_a_run_folder_that_is_moved_away_is_made_anew(self):
        process = subprocess.Popen(self.command(2, "train", self.config, *self.ENDLESS), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.wait_for_steps(process)
        (self.folder / "run").rename(self.folder / "elsewhere")
        process.send_signal(signal.SIGUSR1)
        output, _ = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 75, output)
        self.assertIn(f"{self.folder}/run: was removed or moved by somebody; it is made anew, without what was in it", output)
        self.assertTrue(list((self.folder / "run/checkpoints").glob("step-*/manifest.json")))
        self.assertEqual((self.folder / "run/config.yaml").read_text(), (self.folder / "elsewhere/config.yaml").read_text())

    def test_lines_that_metrics_lack_are_told(self):
        self.train(1)
        metrics = self.folder / "run/metrics.jsonl"
        lines = metrics.read_text().splitlines(keepends=True)
        metrics.write_text("".join(lines[:2]) + "no metrics\n")
        output = self.train(1, "training.steps=7").stdout
        self.assertIn("metrics.jsonl: lacks the lines of steps 3 to 6", output)
        self.assertIn("metrics.jsonl: 1 lines are no metrics", output)
        metrics.unlink()
        self.assertIn("metrics.jsonl: lacks the lines of steps 1 to 7", self.train(1, "training.steps=8").stdout)

    def test_data_that_change_end_the_training_and_lose_nothing(self):
        for ranks, change in ((1, lambda text: text.write_bytes(b"#" * text.stat().st_size)), (2, lambda text: os.truncate(text, 100)), (2, os.remove)):
            (self.folder / "text").write_text("a line of text\n" * 1000)
            process = subprocess.Popen(self.command(ranks, "train", self.config, *self.ENDLESS, *settings("checkpoint.every_steps=0")), stdout=subprocess.PIPE,
                                       stderr=subprocess.STDOUT, text=True)
            self.wait_for_steps(process)
            change(self.folder / "text")
            output, _ = process.communicate(timeout=60)
            self.assertEqual(process.returncode, 3, output)
            self.assertRegex(output, "text: (was written since this program opened it first|cannot be opened)")
            last = self.metrics()[-1]["step"]
            self.assertIn(f"step {last} is saved", output)
            self.assertTrue((self.folder / f"run/checkpoints/step-{last:08d}/manifest.json").exists())
            shutil.rmtree(self.folder / "run")

    def test_a_pipe_is_no_lock(self):
        (self.folder / "run").mkdir()
        os.mkfifo(self.folder / "run/lock")
        self.expect_error(2, "is no regular file, where the lock of the run folder belongs", 2, "train", self.config)

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

    def test_what_is_no_longer_kept_makes_room(self):
        disk = self.on_a_small_disk("700k")
        few = ["checkpoint.every_steps=1", "logging.tensorboard=false"]
        self.train(1, f"run={disk}/run", *few, "checkpoint.keep=10", "training.steps=40", code=4)
        full = sorted(path.name for path in (disk / "run/checkpoints").iterdir())
        self.assertGreater(len(full), 1)
        self.train(1, f"run={disk}/run", *few, "checkpoint.keep=1", "training.steps=20")
        self.assertEqual([path.name for path in (disk / "run/checkpoints").iterdir()], ["step-00000020"])

    def test_a_run_folder_that_can_never_be_written_is_refused_at_once(self):
        (self.folder / "file").write_text("")
        self.expect_config_error(2, "cannot be written: Not a directory", f"run={self.folder}/file/run")
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


if __name__ == "__main__":
    main()
