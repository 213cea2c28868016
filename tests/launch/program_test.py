"""The program as a user runs it: mpirun, files, exit codes, what it prints. Needs only Python's standard library.

    program_test.py LONGNET MPIRUN [unittest arguments]
"""

import json
import os
import pty
import random
import re
import signal
import struct
import subprocess
import tempfile
import time

from harness import CONFIG, LONGNET, MPIRUN, SmallTraining, main, settings

METRICS = ["step", "loss", "gradient_norm", "learning_rate", "tokens", "seconds", "tokens_per_second",
           "peak_memory_bytes", "exchange_bytes", "skipped", "spike", "saves", "failed_saves", "saved_bytes", "save_seconds_written",
           "save_seconds_waited"]


class Program(SmallTraining):
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
        self.train(1, "checkpoint.every_steps=1", "checkpoint.keep=1", "checkpoint.keep_every_steps=2", "training.steps=11")
        names = sorted(p.name for p in (self.folder / "run/checkpoints").iterdir())
        self.assertEqual(names, ["step-00000006", "step-00000008", "step-00000010", "step-00000011"])

    def test_the_best_checkpoints_stay(self):
        """Whatever is newer; each time the model is evaluated it is saved, and the losses outlast a restart."""
        keys = ["checkpoint.every_steps=0", "checkpoint.keep=1", "checkpoint.keep_best=2", "training.evaluate_every_steps=2",
                "optimizer.learning_rate=0.05", "optimizer.warmup_steps=0", "optimizer.schedule=constant"]
        output = self.train(2, *keys, "training.steps=6").stdout + self.train(1, *keys, "training.steps=17").stdout
        losses = {int(step): float(loss) for step, loss in re.findall(r"step (\d+)  validation loss (\S+)", output)}
        self.assertEqual(sorted(losses), list(range(2, 18, 2)))
        best = sorted(losses, key=losses.get)[:2]
        names = sorted(path.name for path in (self.folder / "run/checkpoints").iterdir())
        self.assertEqual(names, [f"step-{step:08}" for step in sorted({*best, 17})])
        for step in best:
            manifest = json.loads((self.folder / f"run/checkpoints/step-{step:08}/manifest.json").read_text())
            self.assertAlmostEqual(manifest["validation_loss"], losses[step], places=6)
        self.assertNotIn("validation_loss", json.loads((self.folder / "run/checkpoints/step-00000017/manifest.json").read_text()))
        self.expect_config_error(2, "checkpoint.keep_best is 2, but nothing is evaluated", "checkpoint.keep_best=2", ranks=1)

    def test_the_best_are_those_on_the_same_held_out_data(self):
        """A loss on others says nothing."""
        (self.folder / "other").write_text("".join(chr(33 + i * i % 89) for i in range(3000)))
        keys = ["checkpoint.every_steps=0", "checkpoint.keep=1", "checkpoint.keep_best=1", "training.evaluate_every_steps=2", "optimizer.schedule=constant"]
        self.train(1, *keys)
        other = settings(*keys, "training.steps=11", f"data.validation=[{self.folder}/other]", "data.validation_fraction=0")
        output = self.run_program(1, "train", self.config, *other, "--allow-change", "data").stdout
        losses = {int(step): float(loss) for step, loss in re.findall(r"step (\d+)  validation loss (\S+)", output)}
        names = sorted(path.name for path in (self.folder / "run/checkpoints").iterdir())
        self.assertEqual(names, [f"step-{min(losses, key=losses.get):08}", "step-00000011"])

    def test_metrics_count_the_saves(self):
        self.train(2, "checkpoint.every_steps=1")
        lines = self.metrics()
        self.assertEqual([line["saves"] for line in lines], [0, 1, 2, 3, 4, 5], "a save ends within the step that comes next")
        size = sum(path.stat().st_size for path in (self.folder / "run/checkpoints/step-00000006").glob("*.safetensors"))
        self.assertEqual([line["saved_bytes"] for line in lines], [size * count for count in range(6)])
        for key in ("save_seconds_written", "save_seconds_waited"):
            self.assertTrue(all(before[key] < after[key] for before, after in zip(lines[1:], lines[2:])), key)

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

    def test_a_step_is_recorded_on_request(self):
        self.train(2, f"run={self.folder / 'plain'}")
        result = self.train(2, f"run={self.folder / 'traced'}", "logging.trace_step=2")
        path = self.folder / "traced/trace-step-2.json"
        self.assertIn(str(path), result.stdout + result.stderr)
        names = {event.get("name", "") for event in json.loads(path.read_text())["traceEvents"]}
        self.assertTrue({"aten::mm", "aten::addmm"} & names, names)
        losses = [[json.loads(line)["loss"] for line in (self.folder / name / "metrics.jsonl").read_text().splitlines()]
                  for name in ("plain", "traced")]
        self.assertEqual(losses[0], losses[1])
        self.assertFalse(list((self.folder / "plain").glob("trace*")))

    def test_a_trace_that_cannot_be_written_is_a_warning(self):
        self.expect_config_error(2, "logging.trace_step is 7, but the training ends with step 6", "logging.trace_step=7")
        (self.folder / "run/trace-step-1.json/in-the-way").mkdir(parents=True)
        result = self.train(1, "logging.trace_step=1")
        self.assertRegex(result.stdout + result.stderr, "warning: .*trace-step-1.json")

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
        for option in ("--top-p", "--temperature"):
            for value in ("0", "nan") if option == "--top-p" else ("-1", "nan", "inf"):
                self.expect_error(2, option, 1, *base, "x", option, value)

    def test_without_a_checkpoint_there_is_nothing_to_evaluate(self):
        self.expect_error(4, "holds no checkpoint", 2, "eval", self.config)
        self.train(1)
        line = self.expect_error(3, "too few", 2, "eval", self.config, "--contexts", "100000")
        self.assertIn("lower --contexts or add data", line)
        for command in (["eval", self.config, "--outputs"], ["attend", self.config, "--queries", "0", "--output"]):
            for folder in ("text", "text/folder"):
                result = self.run_program(2, *command, self.folder / folder, code=1)
                self.assertIn("cannot be written", result.stderr)
                self.assertEqual(result.stdout, "", "it is refused before anything is computed")

    # Bad input

    def test_help_has_examples_and_usage_errors_are_one_line(self):
        output = self.run_program(2, "--help").stdout
        self.assertEqual(output.count("mpirun -np 2 longnet train configs/quickstart.yaml\n"), 1, "printed once")
        self.run_program(1, "train", "--help")
        self.expect_error(2, "see longnet --help", 2, "train")
        self.expect_error(2, "unknown command 'dance'; see longnet --help", 1, "dance")
        self.expect_error(2, "did you mean 'import'?", 1, "checkpoint", "imprt")
        self.expect_error(2, "see longnet --help", 1, "train", self.config, "--no-such-option")

    def test_options_are_checked_by_name(self):
        for command, option, value, text in (
                ("eval", "--contexts", "99999999999999999999", "is beyond 64 bits"), ("eval", "--contexts", "16,1e3", "'1e3' is no whole number"),
                ("eval", "--contexts", "010", "must not begin with a zero"), ("eval", "--contexts", "0", "0 is below 1"),
                ("eval", "--tokens", "9" * 30, "is beyond 64 bits"), ("generate", "--seed", "9" * 30, "is beyond 64 bits"),
                ("attend", "--queries", "9" * 30, "is beyond 64 bits"), ("attend", "--output", "", "is empty"), ("eval", "--outputs", "", "is empty"),
                ("eval", "--checkpoint", "", "is empty"), ("train", "--resume", "", "is empty")):
            self.assertIn(option, self.expect_error(2, text, 1, command, self.config, option, value))
        self.expect_error(2, "config: is empty", 1, "train", "")

    def test_configuration_errors(self):
        self.config.write_text(self.config.read_text() + "optimiser: {}\n")
        line = self.expect_config_error(2, "did you mean 'optimizer'")
        self.assertIn(f"{self.config}:16:1: ", line)
        self.config.write_text(CONFIG.format(folder=self.folder))
        self.expect_config_error(2, "whole number", "training.steps=many")
        self.expect_config_error(2, "whole number", "training.steps=+-5")
        line = self.expect_config_error(2, "2 segments but 1 rates", "model.attention.rates=[1]")
        self.assertIn(f"{self.config}:9:14 with --set model.attention.rates: ", line)
        for key, value, bound in (("training.steps", 10**20, "at most 1000000000000"), ("training.seed", 10**20, "64 bits"), ("training.steps", -10**20, "at least 1"),
                                  ("optimizer.epsilon", "1e-50", "at least 1.2e-38"), ("optimizer.learning_rate", "1e300", "at most 3.4e+38")):
            self.expect_config_error(2, bound, f"{key}={value}")
        self.expect_config_error(2, "segments is 0: it must be at least 1", "model.attention.segments=[0, 64]")
        self.expect_config_error(2, "rates is 0: it must be at least 1", "model.attention.rates=[0, 2]")
        for key, value in (("model.layers", 10**9), ("model.width", 10**11), ("model.vocabulary", 2**40), ("training.batch_size", 2**63 - 1),
                           ("data.sequence_length", 2**62), ("model.attention.segments", [16, 2**62])):
            self.expect_config_error(2, f"{key} is ", f"{key}={value}")
        self.expect_config_error(2, "does not divide the width", "model.heads=3")
        self.expect_error(2, "No such file", 2, "train", self.folder / "none.yaml")
        self.expect_config_error(2, "data.train is an empty list", "data.train=[]")
        deep = self.folder / "deep.yaml"
        deep.write_text("[" * 100_000)
        self.assertIn(str(deep), self.expect_error(2, "nested deeper", 1, "train", deep))

    def test_a_model_without_room_is_told_in_plain_words(self):
        line = self.expect_config_error(1, "out of memory (", "model.width=1048576", ranks=1)
        self.assertNotIn("Allocator", line)

    def test_mesh_errors(self):
        self.expect_config_error(2, "parallel.sequence is 2, but the job has 3 ranks", "parallel.sequence=2", ranks=3)
        self.expect_config_error(2, "no multiple of 2", "training.batch_size=3", "parallel.sequence=1")
        self.expect_config_error(2, "parallel.transport is aligned", "parallel.transport=aligned", "data.sequence_length=63")

    def test_data_errors(self):
        self.expect_config_error(3, "no such file", f"data.train=[{self.folder}/gone]")
        (self.folder / "empty").write_text("")
        self.expect_config_error(3, "the file is empty", f"data.train=[{self.folder}/empty]")
        self.expect_config_error(3, "too few for one sequence", "data.sequence_length=1000000")
        self.expect_config_error(2, "what the run writes would become data", f"data.train=[{self.folder}]")
        self.expect_config_error(2, "which data.validation names", f"data.validation=[{self.folder}/.]")
        self.expect_config_error(2, "nothing is held out", "data.validation_fraction=0", "training.evaluate_every_steps=1")
        self.expect_config_error(3, "data.validation_fraction, 0.001, says", "data.validation_fraction=0.001", "training.evaluate_every_steps=1")
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
        # Both ranks meet it, each in its own part of the sequence or in a sequence of its own.
        for sequence in (1, 2):
            line = self.expect_config_error(3, "vocabulary is 100", "model.vocabulary=100", f"parallel.sequence={sequence}", "checkpoint.every_steps=0")
            self.assertIn("rank 1: ", line)
            self.expect_error(3, "vocabulary is 100", 2, "eval", self.config, *settings("model.vocabulary=100", f"parallel.sequence={sequence}"), "--checkpoint", "none")
        # One alone does: the first rank has the first part of every sequence.
        (self.folder / "text").write_text("".join(("a" * 40 + "\x7f" * 24) for _ in range(200)))
        self.expect_error(3, "rank 1: ", 2, "eval", self.config, *settings("model.vocabulary=127", "data.validation_fraction=0.5"), "--checkpoint", "none",
                          "--contexts", "64")

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

    def test_a_run_that_ends_with_skipped_steps_is_no_success(self):
        self.expect_config_error(5, "not finite in 3 steps in a row", "optimizer.learning_rate=1e38", "optimizer.warmup_steps=0",
                                 "training.skipped_steps_limit=3", "training.steps=100", "checkpoint.every_steps=1")
        self.expect_config_error(5, "not finite in the last 2 steps: they are not saved", "optimizer.learning_rate=1e-3", "training.steps=3")

    def test_a_spike_is_skipped_and_told(self):
        chance = random.Random(1)
        noise = "".join(chr(chance.randrange(33, 127)) for _ in range(64))
        (self.folder / "text").write_text("a" * 64 * 40 + noise + "a" * 64 * 40)
        keys = ["training.batch_size=1", "training.steps=400", "training.skip_spikes=6", "checkpoint.every_steps=0"]
        output = self.train(1, *keys).stdout
        spikes = [line["step"] for line in self.metrics() if line["spike"]]
        self.assertTrue(0 < len(spikes) < 8, spikes)
        self.assertTrue(all(line["skipped"] and line["loss"] > 2 for line in self.metrics() if line["spike"]))
        self.assertEqual([int(step) for step in re.findall(r"step (\d+)/400 .*skipped: a spike", output)], spikes)
        # As though it had gone on without a stop.
        for steps in (spikes[0] + 1, 400):
            self.train(1, *keys, f"training.steps={steps}", "optimizer.schedule=constant", "run=" + str(self.folder / "stopped"))
        self.train(1, *keys, "optimizer.schedule=constant", "run=" + str(self.folder / "whole"))
        self.assertEqual(self.trajectory(self.metrics("stopped")), self.trajectory(self.metrics("whole")))
        self.assertEqual([line["spike"] for line in self.metrics("stopped")], [line["spike"] for line in self.metrics("whole")])

    def test_a_stop_amid_skipped_steps_says_that_nothing_is_saved(self):
        process = subprocess.Popen([LONGNET, "train", str(self.config), *self.ENDLESS, *settings("optimizer.learning_rate=1e30", "training.skipped_steps_limit=1000000")],
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        while not any(line["skipped"] for line in (self.metrics() if (self.folder / "run/metrics.jsonl").exists() else [])):
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 75, output)
        self.assertIn("nothing is saved, because the last steps were skipped", output)

    def test_skipped_steps_displace_no_checkpoint(self):
        each = ("checkpoint.every_steps=1", "checkpoint.keep=2")
        self.train(2, "training.steps=4", *each)
        result = self.train(2, "training.steps=30", "optimizer.learning_rate=1e30", *each, code=5)
        names = sorted(path.name for path in (self.folder / "run/checkpoints").iterdir())
        self.assertEqual(names, ["step-00000004", "step-00000005"])
        self.assertEqual((result.stdout + result.stderr).count("they are not saved"), 1, result.stdout + result.stderr)
        self.train(2, "training.steps=8", *each, resume=self.folder / "run/checkpoints/step-00000004")
        self.assertEqual([line["skipped"] for line in self.metrics()], [False] * 8)


if __name__ == "__main__":
    main()
