"""Going on from checkpoints: to the last bit, along one branch, with the configuration that they were made with.

    resume_test.py LONGNET MPIRUN [unittest arguments]
"""

import os
import json
import shutil

from harness import SmallTraining, main, settings


class Resume(SmallTraining):
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

    def test_checkpoints_of_other_names_are_told(self):
        self.train(1)
        checkpoints = self.folder / "run/checkpoints"
        for name in ("step-00000006.bak", "best", "step-6"):
            with self.subTest(name=name):
                (checkpoints / "step-00000006").rename(checkpoints / name)
                (checkpoints / "step-00000003").rename(self.folder / "aside")
                line = self.expect_config_error(4, "has a manifest, but not the name of a checkpoint", ranks=1)
                self.assertIn(f"checkpoints/{name}", line)
                (self.folder / "aside").rename(checkpoints / "step-00000003")
                (checkpoints / name).rename(checkpoints / "step-00000006")
        self.assertEqual(len(self.metrics()), 6)

    def test_metrics_without_a_checkpoint_are_kept(self):
        self.train(1)
        before = (self.folder / "run/metrics.jsonl").read_text()
        (self.folder / "run/checkpoints").rename(self.folder / "run/checkpoints.old")
        output = self.train(1, "training.steps=2").stdout
        self.assertIn("metrics of the steps that were left", output)
        self.assertEqual((self.folder / "run/metrics.abandoned.jsonl").read_text(), before)
        self.assertEqual(len(self.metrics()), 2)

    def test_a_manifest_of_any_size_is_bounded(self):
        self.train(1)
        os.truncate(self.folder / "run/checkpoints/step-00000006/manifest.json", 20 << 30)
        output = self.train(1).stdout
        self.assertIn("step-00000006/manifest.json: is larger than any manifest", output)
        self.assertIn("step-00000003 at step 3", output)

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


if __name__ == "__main__":
    main()
