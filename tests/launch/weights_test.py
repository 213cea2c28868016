"""Published weights in the program: import, evaluation over several ranks, attention maps.

    weights_test.py LONGNET MPIRUN [unittest arguments]
"""

import json
import math
import shutil
import struct
import subprocess
from array import array
from pathlib import Path

from harness import LONGNET, ProgramTest, main, settings

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
SLIDE = GOLDEN / "torchscale/gigapath_slide_ragged.safetensors"

CONFIG = """run: {folder}/run
model:
  type: slide_encoder
  channels: 24
  width: 48
  layers: 2
  heads: 4
  feed_forward: 64
  attention: {{segments: [8, 16, 32], rates: [1, 2, 4]}}
  compatibility: torchscale
data: {{type: examples, train: [{folder}/slides], validation: [{folder}/slides], sequence_length: 100}}
training: {{steps: 1, precision: fp64}}
"""


def read_safetensors(path):
    """name -> (shape, values), of real numbers."""
    data = Path(path).read_bytes()
    length, = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + length])
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__" or entry["dtype"] not in ("F64", "F32"):
            continue
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        tensors[name] = entry["shape"], array("d" if entry["dtype"] == "F64" else "f", data[begin:end])
    return tensors


def write_safetensors(path, tensors):
    header, offset = {}, 0
    for name, (shape, values) in tensors.items():
        header[name] = {"dtype": "F64", "shape": shape, "data_offsets": [offset, offset + 8 * len(values)]}
        offset += 8 * len(values)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(values.tobytes() for _, values in tensors.values()))


class Weights(ProgramTest):
    def setUp(self):
        super().setUp()
        self.config = self.folder / "config.yaml"
        self.config.write_text(CONFIG.format(folder=self.folder))
        golden = read_safetensors(SLIDE)
        self.golden = golden
        prefixes = ("input", "output", "grad", "attention0", "derived")
        self.weights = {name: tensor for name, tensor in golden.items() if not name.startswith(prefixes)}
        self.file = self.folder / "weights.safetensors"
        write_safetensors(self.file, self.weights)
        (self.folder / "slides").mkdir()
        for slide in range(2):
            part = {name: (shape[1:], values[slide * len(values) // 2:(slide + 1) * len(values) // 2])
                    for name, (shape, values) in (("tiles", golden["input.tiles"]), ("coords", golden["input.coords"]))}
            write_safetensors(self.folder / f"slides/slide{slide}.safetensors", part)

    def import_weights(self, *options):
        return self.run_program(2, "checkpoint", "import", self.config, self.file, *options)

    def expect_refusal(self, code, text, *options):
        return self.expect_error(code, text, 2, "checkpoint", "import", self.config, self.file, *options)

    def test_imported_weights_give_the_peers_embeddings(self):
        for pooling, name in (("class_token", "cls"), ("mean", "pool")):
            options = settings(f"model.pooling={pooling}", f"run={self.folder}/{pooling}")
            self.import_weights(*options)
            for ranks in (1, 3):
                self.run_program(ranks, "eval", self.config, "--outputs", self.folder / "out", *options)
                for kind, rows in (("all", 3), ("last", 1)):
                    expected = self.golden[f"output.{name}.{kind}"][1]  # ([layers + 1,] 2, 48)
                    for slide in range(2):
                        shape, actual = read_safetensors(self.folder / f"out/slide{slide}.safetensors")[kind]
                        self.assertEqual(shape, [3, 48] if kind == "all" else [48])
                        for row in range(rows):
                            for channel in range(48):
                                self.assertAlmostEqual(actual[row * 48 + channel], expected[(row * 2 + slide) * 48 + channel], delta=1e-9)

    def test_what_does_not_fit_is_named(self):
        weights = dict(self.weights)
        missing = weights.pop("encoder.layers.1.ffn.fc1.bias")
        write_safetensors(self.file, weights)
        self.expect_refusal(4, "weights.safetensors: the tensor encoder.layers.1.ffn.fc1.bias is missing")
        write_safetensors(self.file, {**weights, "encoder.layers.1.ffn.fc1.bias": ([32], missing[1][:32])})
        self.expect_refusal(4, "the tensor encoder.layers.1.ffn.fc1.bias has the shape [32], but the model's is [64]")
        write_safetensors(self.file, {**self.weights, "head.bias": ([64], missing[1])})
        self.expect_refusal(4, "the tensor head.bias [64] has no place in the model")
        self.import_weights("--ignore", "head.")
        self.expect_refusal(2, "holds checkpoints")

    def test_a_new_head_is_trained_on_imported_weights(self):
        head = ["model.head={type: regression, outputs: 24, field: target}", "training.steps=2", "data.validation_fraction=0.5"]
        self.expect_refusal(4, "the tensor head.weight is missing; --initialize head.weight would start it anew", *settings(*head))
        self.import_weights("--initialize", "head.", *settings(*head))
        for slide in range(2):
            path = self.folder / f"slides/slide{slide}.safetensors"
            tensors = read_safetensors(path)
            write_safetensors(path, {**tensors, "target": ([24], tensors["tiles"][1][:24])})
        self.run_program(2, "train", self.config, *settings(*head))
        self.assertEqual([line["step"] for line in self.metrics()], [1, 2])

    def test_wrappers_are_left_out_of_names_and_what_is_beside_the_weights_is_in_nobodys_way(self):
        wrapped = {"module._orig_mod." + name: tensor for name, tensor in self.weights.items()}
        write_safetensors(self.file, wrapped)
        self.assertIn("left out of all names: ", self.import_weights().stdout)
        data = self.file.read_bytes()
        length, = struct.unpack("<Q", data[:8])
        header = json.loads(data[8:8 + length])
        end = max(entry["data_offsets"][1] for entry in header.values())
        header["module._orig_mod.other"] = {"dtype": "F4", "shape": [8], "data_offsets": [end, end + 4]}
        text = json.dumps(header).encode()
        self.file.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length:] + bytes(4))
        other = settings(f"run={self.folder}/other")
        self.expect_refusal(4, "the tensor other (of the dtype F4) has no place in the model; --ignore other", *other)
        self.import_weights(*other, "--ignore", "other")

    def test_outputs_of_equal_names_in_two_folders_do_not_meet(self):
        self.import_weights()
        for folder in ("a", "b"):
            (self.folder / "slides" / folder).mkdir()
            shutil.copy(self.folder / "slides/slide0.safetensors", self.folder / "slides" / folder)
        (self.folder / "slides/a/slide0.safetensors").write_bytes((self.folder / "slides/slide1.safetensors").read_bytes())
        self.run_program(2, "eval", self.config, "--outputs", self.folder / "out")
        names = sorted(str(path.relative_to(self.folder / "out")) for path in (self.folder / "out").rglob("*.safetensors"))
        self.assertEqual(names, ["a/slide0.safetensors", "b/slide0.safetensors", "slide0.safetensors", "slide1.safetensors"])
        self.assertEqual((self.folder / "out/a/slide0.safetensors").read_bytes(), (self.folder / "out/slide1.safetensors").read_bytes())
        self.assertNotEqual((self.folder / "out/a/slide0.safetensors").read_bytes(), (self.folder / "out/b/slide0.safetensors").read_bytes())

    def test_outputs_of_a_file_that_is_named_twice_are_refused(self):
        self.import_weights()
        slide = self.folder / "slides/slide0.safetensors"
        twice = ["--set", f"data.validation=[{slide}, {slide}]"]
        self.run_program(1, "eval", self.config, "--set", f"data.validation=[{slide}]", "--outputs", self.folder / "out")
        self.expect_error(2, "name no file of the held-out data twice", 2, "eval", self.config, *twice, "--outputs", self.folder / "out")

    def test_results_replace_results_and_nothing_else(self):
        self.import_weights()
        slide = self.folder / "slides/slide0.safetensors"
        before = slide.read_bytes()
        (self.folder / "links").mkdir()
        (self.folder / "links/slide0.safetensors").symlink_to(slide)
        for folder in ("slides", "links"):
            self.expect_error(2, "is no result that longnet wrote", 2, "eval", self.config, "--outputs", self.folder / folder)
        (self.folder / "out").mkdir()
        (self.folder / "out/weights.safetensors").write_bytes(before)
        attend = ("attend", self.config, "--queries", "1")
        self.expect_error(2, "is no result that longnet wrote", 2, *attend, "--output", self.folder / "out")
        self.assertEqual([slide.read_bytes(), (self.folder / "out/weights.safetensors").read_bytes()], [before, before])
        checkpoint, = (self.folder / "run/checkpoints").iterdir()
        for command in (["eval", self.config, "--outputs"], [*attend, "--output"]):
            self.expect_error(2, "is a checkpoint; choose another folder", 2, *command, checkpoint)
            for _ in range(2):
                self.run_program(2, *command, self.folder / "new")

    def test_there_may_be_more_slides_than_open_files(self):
        self.import_weights()
        slide = (self.folder / "slides/slide0.safetensors").read_bytes()
        for number in range(200):
            (self.folder / f"slides/more{number}.safetensors").write_bytes(slide)
        command = ["eval", self.config, "--outputs", self.folder / "out"]
        result = subprocess.run(["bash", "-c", 'ulimit -n 64; exec "$@"', "bash", LONGNET, *map(str, command)], capture_output=True, text=True, timeout=120)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertEqual(len(list((self.folder / "out").iterdir())), 202)

    def test_a_number_that_is_none_is_named(self):
        path = self.folder / "slides/slide1.safetensors"
        tensors = read_safetensors(path)
        tensors["tiles"][1][24 * 7 + 3] = math.nan
        write_safetensors(path, tensors)
        self.expect_error(3, "slide1.safetensors: the field tiles holds nan in row 7, channel 3", 1, "eval", self.config, "--checkpoint", "none")

    def test_slides_that_lack_coordinates_or_tiles_are_named(self):
        path = self.folder / "slides/slide1.safetensors"
        tensors = read_safetensors(path)
        write_safetensors(path, {"tiles": tensors["tiles"]})
        self.expect_error(3, "slide1.safetensors: the field coords is missing", 2, "eval", self.config, "--checkpoint", "none")
        shape, values = tensors["coords"]
        write_safetensors(path, {"tiles": tensors["tiles"], "coords": ([shape[0] - 1, 2], values[:-2])})
        self.expect_error(3, "coords covers 49 positions, but the fields before it 50", 2, "eval", self.config, "--checkpoint", "none")

    def test_legacy_files_are_refused_and_torch_files_read(self):
        legacy = GOLDEN / "weights/legacy.pt"
        self.expect_error(3, "before version 1.6", 1, "checkpoint", "import", self.config, legacy)
        self.expect_error(4, "linear.pt: the tensor patch_embed.proj.weight is missing", 1, "checkpoint", "import", self.config, GOLDEN / "weights/linear.pt")

    def test_a_model_without_a_head_cannot_be_trained(self):
        self.expect_error(2, "there is nothing to train", 2, "train", self.config)

    def test_attention_maps_are_those_of_the_definition(self):
        self.import_weights()
        queries = [0, 7, 50]
        maps = []
        for ranks in (1, 3):
            output = self.run_program(ranks, "attend", self.config, "--queries", ",".join(map(str, queries)), "--attention",
                                      "encoder.layers.0.self_attn").stdout
            self.assertIn("position 7 looks most at position", output)
            self.assertTrue((self.folder / "run/attention/encoder.layers.0.self_attn.png").read_bytes().startswith(b"\x89PNG"))
            shape, weights = read_safetensors(self.folder / "run/attention/weights.safetensors")["encoder.layers.0.self_attn"]
            self.assertEqual(shape, [3, 4, 51])
            maps.append(weights)
        # Weights times values are the golden file's output of the first layer's attention.
        values, expected = self.golden["attention0.v"][1], self.golden["attention0.out"][1]
        for weights in maps:
            for index, query in enumerate(queries):
                for head in range(4):
                    row = weights[(index * 4 + head) * 51:(index * 4 + head + 1) * 51]
                    for channel in range(12):
                        total = math.fsum(weight * values[(key * 4 + head) * 12 + channel] for key, weight in enumerate(row))
                        self.assertAlmostEqual(total, expected[(query * 4 + head) * 12 + channel], delta=1e-6)
        self.expect_error(2, "the sequence has positions 0 to 50", 2, "attend", self.config, "--queries", "51")
        self.expect_error(2, "the model's attentions are encoder.layers.0.self_attn", 2, "attend", self.config, "--queries", "0",
                          "--attention", "layers.7")


if __name__ == "__main__":
    main()
