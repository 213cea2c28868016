#!/usr/bin/env python3
"""What the wrappers of core/attention/kernels hand to LibTorch's attention operators, without a GPU.

kernel_contract_test.py LIBKERNEL_CONTRACT.SO      with the full wheel torch==2.11.0 on the path

LibTorch's own Meta registrations say what an operator's forward pass returns for given inputs: shapes, dtypes, strides, and
what is undefined. Whatever we hand to the backward pass in place of these must be the same. The tensors are on the device
`meta`: nothing is computed.
"""
import sys
import unittest

import torch
from torch.utils._python_dispatch import TorchDispatchMode

torch.ops.load_library(sys.argv.pop(1))
aten = torch.ops.aten

FORWARD = {"flash": aten._scaled_dot_product_flash_attention.default,
           "cudnn": aten._scaled_dot_product_cudnn_attention.default,
           "efficient": aten._scaled_dot_product_efficient_attention.default,
           "cpu": aten._scaled_dot_product_flash_attention_for_cpu.default}
BACKWARD = {"flash": aten._scaled_dot_product_flash_attention_backward.default,
            "cudnn": aten._scaled_dot_product_cudnn_attention_backward.default,
            "efficient": aten._scaled_dot_product_efficient_attention_backward.default,
            "cpu": aten._scaled_dot_product_flash_attention_for_cpu_backward.default}
# Arguments of a backward pass by what the forward pass returns in their place.
OUTPUTS = {"flash": ["out", "logsumexp", "cum_seq_q", "cum_seq_k", "max_q", "max_k", "philox_seed", "philox_offset"],
           "cudnn": ["out", "logsumexp", "cum_seq_q", "cum_seq_k", "max_q", "max_k", "philox_seed", "philox_offset"],
           "efficient": ["out", "logsumexp", "philox_seed", "philox_offset"],
           "cpu": ["out", "logsumexp"]}


class Record(TorchDispatchMode):
    """Keeps the calls of attention operators, by name."""

    def __init__(self):
        super().__init__()
        self.calls = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function in FORWARD.values() or function in BACKWARD.values():
            names = [argument.name for argument in function._schema.arguments]
            values = {argument.name: argument.default_value for argument in function._schema.arguments if argument.has_default_value()}
            values.update(zip(names, args))
            values.update(kwargs or {})
            self.calls[function] = values, result
        return result


def tile(rows, segments, heads, count, row_step, head_width):
    """(segments, heads, count, D) of a tensor (1, N, H, D): a diagonal view as core/attention/views makes it."""
    heads_in_all = rows.size(2)
    row = heads_in_all * head_width
    return rows.as_strided((segments, heads, count, head_width), (count * row_step * row, row + head_width, row_step * row, 1))


def shape_of(value):
    return None if value is None else (tuple(value.shape), value.dtype) if isinstance(value, torch.Tensor) else value


class KernelContract(unittest.TestCase):
    def case(self, kernel, dtype, causal, masked, queries, keys, segments=3, heads=2, row_step=2, width=64):
        length, heads_in_all = 2 * max(queries, keys) * row_step * segments, 4
        whole = [torch.empty(1, length, heads_in_all, width, dtype=dtype, device="meta") for _ in range(5)]
        q, out, out_gradient = (tile(whole[i], segments, heads, queries, row_step, width) for i in (0, 3, 4))
        k, v = (tile(whole[i], segments, heads, keys, row_step, width) for i in (1, 2))
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        lse = torch.empty(1, length, heads_in_all, dtype=wide, device="meta").as_strided(
            (segments, heads, queries), (queries * row_step * heads_in_all, heads_in_all + 1, row_step * heads_in_all))
        bias = torch.empty(segments, 1, 1, keys, dtype=dtype, device="meta").expand(-1, heads, -1, -1) if masked else None

        record = Record()
        with record:
            ours = torch.ops.longnet_test.forward(kernel, q, k, v, causal, bias)
            gradients = torch.ops.longnet_test.backward(kernel, out_gradient, q, k, v, out, lse, causal, bias)
        arguments, outputs = record.calls[FORWARD[kernel]]
        handed, _ = record.calls[BACKWARD[kernel]]
        with self.subTest(kernel=kernel, dtype=dtype, causal=causal, masked=masked, queries=queries, keys=keys):
            self.assertEqual(shape_of(ours[0]), shape_of(q))
            self.assertEqual(shape_of(ours[1]), ((segments, heads, queries), wide))
            self.assertEqual([shape_of(gradient) for gradient in gradients], [shape_of(tensor) for tensor in (q, k, v)])
            self.assertEqual((arguments["is_causal"], arguments["dropout_p"], handed["is_causal"], handed["dropout_p"]), (causal, 0.0, causal, 0.0))
            for name, expected in zip(OUTPUTS[kernel], outputs):
                self.assertEqual(shape_of(handed[name]), shape_of(expected), name)
                if name == "logsumexp" and kernel != "cpu":  # the CPU's kernel reads it by its strides
                    self.assertEqual(handed[name].stride(), expected.stride(), "kernels read it as the memory that they wrote")
            if masked:
                forward_bias, backward_bias = (values.get("attn_bias", values.get("attn_mask")) for values in (arguments, handed))
                self.assertEqual(shape_of(forward_bias), ((segments, heads, queries, keys), dtype))
                self.assertEqual(shape_of(backward_bias), shape_of(forward_bias))
            if kernel == "efficient":
                self.assertEqual(handed["out"].transpose(1, 2).is_contiguous(), True, "its kernel takes this layout for granted")
                self.assertEqual(handed["grad_input_mask"][:3], [True] * 3)

    def test_what_is_handed_back_is_what_the_forward_pass_returns(self):
        for causal in (False, True):
            for queries, keys in ((512, 512), (37, 37), (640, 96)):
                if causal and queries != keys:
                    continue
                for dtype in (torch.bfloat16, torch.float16):
                    self.case("flash", dtype, causal, False, queries, keys)
                    self.case("cudnn", dtype, causal, False, queries, keys)
                for masked in (False, True):
                    for dtype in (torch.float32, torch.bfloat16):
                        self.case("efficient", dtype, causal, masked, queries, keys)
                    for dtype in (torch.float32, torch.bfloat16):  # the registration for float64 says float32
                        self.case("cpu", dtype, causal, masked, queries, keys)

    def test_one_segment_of_one_head_is_no_exception(self):
        for kernel in ("flash", "cudnn", "efficient"):
            self.case(kernel, torch.bfloat16, True, False, 33, 33, segments=1, heads=1, row_step=1, width=128)


if __name__ == "__main__":
    unittest.main(verbosity=2)
