"""The configurations that the project ships: each runs, and the quickstart learns.

    configs_test.py LONGNET MPIRUN [unittest arguments]
"""

import array
import collections
import json
import math
import re
import struct
from pathlib import Path

from harness import ProgramTest, main, settings

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
DATA = CONFIGS.parent / "data"  # of launch/scripts/fetch_sensors.py


class Configs(ProgramTest):
    def train(self, ranks, config, *assignments):
        return self.run_program(ranks, "train", CONFIGS / config, *settings(f"run={self.folder}/run", *assignments))

    def test_every_config_is_tested_here(self):
        names = {path.name for path in CONFIGS.glob("*.yaml")}
        source = Path(__file__).read_text()
        for name in names:
            self.assertIn(f'"{name}"', source)

    def test_the_papers_model_makes_a_step(self):
        result = self.train(2, "paper-125m.yaml", "training.steps=1", "training.batch_size=1", "data.sequence_length=1024")
        self.assertRegex(result.stdout, r"1[12]\d{7} parameters")
        step, = self.metrics()
        self.assertFalse(step["skipped"])
        # A new model's hidden states are normalized and its output weights have variance 1 / C: logits are about normal.
        self.assertAlmostEqual(step["loss"], math.log(50257) + 0.5, delta=0.3)

    def test_genomes_are_read_and_trained_on(self):
        record = ">chromosome\n" + "\n".join("ACGTTGCAAGGCTTAC" * 4 + "ACCGGTTN" for _ in range(400)) + "\n"
        for name in ("train.fna", "validation.fna"):
            (self.folder / name).write_text(record)
        data = [f"data.train=[{self.folder}/train.fna]", f"data.validation=[{self.folder}/validation.fna]",
                "data.sequence_length=4096", "training.steps=3"]
        self.train(2, "genome.yaml", *data)
        self.assertEqual(len(self.metrics()), 3)
        options = settings(f"run={self.folder}/run", *data)
        table = self.run_program(2, "eval", CONFIGS / "genome.yaml", "--tokens", "4096", *options).stdout
        self.assertIn("bits/base", table)
        sample = self.run_program(1, "generate", CONFIGS / "genome.yaml", "--prompt", ">ACGT", "--tokens", "40", *options).stdout
        self.assertRegex(sample, r"^>ACGT[ACGTN>]{40}\n$")

    def evaluate(self, config, *assignments):
        """The last row of eval's table."""
        output = self.run_program(2, "eval", CONFIGS / config, *settings(f"run={self.folder}/run", *assignments)).stdout
        return [float(number) for number in output.strip().splitlines()[-2].split()]

    def test_motions_are_told_apart(self):
        data = [f"data.train=[{DATA}/motions/train]", f"data.validation=[{DATA}/motions/test]"]
        self.train(2, "multimodal-motions.yaml", *data)
        *_, accuracy = self.evaluate("multimodal-motions.yaml", *data)
        self.assertGreaterEqual(accuracy, 0.95)
        for sensor in ("gyroscope", "accelerometer"):
            *_, accuracy = self.evaluate("multimodal-motions.yaml", *data, f"data.missing=[{sensor}]")
            print(f"accuracy without the {sensor}: {accuracy}")
            self.assertGreaterEqual(accuracy, 0.5, "twice as good as a guess")
        self.expect_error(3, "has none of accelerometer, gyroscope", 2, "eval", CONFIGS / "multimodal-motions.yaml",
                          *settings(f"run={self.folder}/run", *data, "data.missing=[gyroscope, accelerometer]"))

    def test_forecasts_beat_no_change(self):
        data = [f"data.train=[{DATA}/daphnet]"]
        self.train(2, "multimodal-daphnet.yaml", *data, "training.steps=80")
        *_, loss, persistence = self.evaluate("multimodal-daphnet.yaml", *data)
        self.assertLess(loss, 0.8 * persistence)

    def test_slides_of_unequal_size_are_embedded(self):
        (self.folder / "slides").mkdir()
        for name, tiles in (("small", 30), ("large", 700)):
            header = {"tiles": {"dtype": "F32", "shape": [tiles, 1536], "data_offsets": [0, tiles * 1536 * 4]},
                      "coords": {"dtype": "F32", "shape": [tiles, 2], "data_offsets": [tiles * 1536 * 4, tiles * 1538 * 4]}}
            text = json.dumps(header).encode()
            values = array.array("f", [math.sin(i * i) for i in range(tiles * 1538)])
            (self.folder / f"slides/{name}.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + values.tobytes())
        data = [f"data.train=[{self.folder}/slides]", f"data.validation=[{self.folder}/slides]"]
        output = self.run_program(2, "eval", CONFIGS / "slide-encoder.yaml", "--checkpoint", "none",
                                  *settings(f"run={self.folder}/run", *data)).stdout
        self.assertRegex(output, r"largest rank \d+ MiB")
        for name in ("small", "large"):
            self.assertGreater((self.folder / f"run/outputs/{name}.safetensors").stat().st_size, (13 + 1) * 768 * 4)

    def unigram_entropy(self):
        """Of the bytes of the C++ headers, in nats."""
        counts = collections.Counter()
        for path in Path("/usr/include/c++").rglob("*"):
            if path.is_file():
                counts.update(path.read_bytes())
        total = sum(counts.values())
        return -sum(count / total * math.log(count / total) for count in counts.values())

    def test_the_encoder_guesses_masked_bytes(self):
        self.train(2, "encoder-text.yaml", "training.steps=120", "training.evaluate_every_steps=0")
        loss = sum(line["loss"] for line in self.metrics()[-10:]) / 10
        unigram = self.unigram_entropy()
        print(f"entropy of single bytes {unigram:.2f} nats, loss after 120 steps {loss:.2f}")
        self.assertLess(loss, unigram - 0.5, "it guesses from what stands around a masked byte")

    def test_the_quickstart_learns(self):
        self.train(2, "quickstart.yaml", "training.steps=100")
        loss = sum(line["loss"] for line in self.metrics()[-10:]) / 10
        unigram = self.unigram_entropy()
        print(f"entropy of single bytes {unigram:.2f} nats, loss after 100 steps {loss:.2f}")
        self.assertLess(loss, unigram - 0.5, "the model knows more than how often each byte comes")

        output = self.run_program(2, "eval", CONFIGS / "quickstart.yaml", "--tokens", "65536", *settings(f"run={self.folder}/run")).stdout
        rows = [line.split() for line in output.splitlines() if re.match(r" +\d", line)]
        held_out = {int(row[0]): float(row[2]) for row in rows}
        self.assertEqual(sorted(held_out), [256, 512, 1024, 2048])
        self.assertLess(held_out[2048], unigram - 0.5, "held-out text follows")
        for short, long in ((256, 512), (512, 1024), (1024, 2048)):
            self.assertLess(held_out[long], held_out[short] + 0.01, "a longer context does not hurt")


if __name__ == "__main__":
    main()
