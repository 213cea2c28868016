#!/usr/bin/env python3
"""torch.ops.longnet.dilated_attention as a user of PyTorch meets it.

operator_test.py LIBLONGNET_OPS.SO      with the full wheel torch==2.11.0 on the path
"""
import pathlib
import re
import sys
import unittest

import torch

torch.ops.load_library(sys.argv.pop(1))
attention = torch.ops.longnet.dilated_attention


def inputs(batch=2, length=37, heads=4, width=8, dtype=torch.float64, gradient=True):
    torch.manual_seed(3)
    return [torch.randn(batch, length, heads, width, dtype=dtype, requires_grad=gradient) for _ in range(3)]


def definition(q, k, v, segments, rates, causal, layout, key_mask=None):
    """One softmax over the keys of all branches; a key that two branches reach counts twice."""
    length, heads = q.shape[1:3]
    position = torch.arange(length)
    count = torch.zeros(heads, length, length, dtype=q.dtype)
    for segment, rate in zip(segments, rates):
        for head in range(heads):
            offset = head % rate if layout == "cyclic" else head // -(-heads // rate)
            member = position % segment % rate == offset
            together = (position // segment)[:, None] == (position // segment)[None, :]
            reach = member[:, None] & member[None, :] & together
            count[head] += (reach.tril() if causal else reach).to(q.dtype)
    count = count.unsqueeze(0)
    if key_mask is not None:
        count = count * key_mask[:, None, None, :]
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5
    weight = count * torch.exp(scores)
    total = weight.sum(-1, keepdim=True)
    out = torch.einsum("bhqk,bkhd->bqhd", weight / total.clamp_min(1e-300), v)
    return out, total.squeeze(-1).log().transpose(1, 2)


class Operator(unittest.TestCase):
    def test_it_is_the_definition_and_so_is_its_gradient(self):
        mask = torch.rand(2, 37) > 0.3
        for causal in (False, True):
            for layout in ("cyclic", "block"):
                for key_mask in (None, mask):
                    q, k, v = inputs()
                    arguments = ([5, 16, 100], [1, 3, 4], causal, layout, key_mask)
                    out, lse = attention(q, k, v, *arguments)
                    expected, expected_lse = definition(q, k, v, *arguments)
                    torch.testing.assert_close(out, expected)
                    torch.testing.assert_close(lse, expected_lse)
                    self.assertFalse(lse.requires_grad)
                    gradient = torch.randn_like(out)
                    torch.testing.assert_close(torch.autograd.grad(out, (q, k, v), gradient),
                                               torch.autograd.grad(expected, (q, k, v), gradient))

    def test_a_query_without_a_key_gives_zero_and_minus_infinity(self):
        q, k, v = inputs()
        mask = torch.ones(2, 37, dtype=torch.bool)
        mask[1] = False
        out, lse = attention(q, k, v, [16], [1], True, "cyclic", mask)
        self.assertTrue(bool((out[1] == 0).all() and (lse[1] == -torch.inf).all()))
        for gradient in torch.autograd.grad(out.sum(), (q, k, v)):
            self.assertTrue(bool(gradient.isfinite().all()))

    def test_dtypes(self):
        for dtype, wide in ((torch.float32, torch.float32), (torch.bfloat16, torch.float32)):
            q, k, v = inputs(dtype=dtype)
            out, lse = attention(q, k, v, [8, 64], [1, 2], True, "cyclic", None)
            self.assertEqual((out.dtype, lse.dtype), (dtype, wide))
            exact, _ = attention(q.double(), k.double(), v.double(), [8, 64], [1, 2], True, "cyclic", None)
            torch.testing.assert_close(out.double(), exact, rtol=2e-2, atol=2e-2)

    def test_opcheck(self):
        mask = torch.rand(2, 37) > 0.3
        for arguments in (([8, 64], [1, 2], True, "cyclic", None), ([8, 64], [1, 2], False, "block", mask)):
            torch.library.opcheck(torch.ops.longnet.dilated_attention.default, (*inputs(), *arguments))
            torch.library.opcheck(torch.ops.longnet.dilated_attention.default, (*inputs(gradient=False), *arguments))

    def test_it_compiles_with_its_gradient(self):
        def loss(q, k, v):
            return attention(q * 2, k, v, [8, 64], [1, 2], True, "cyclic", None)[0].square().sum()

        compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
        for length in (37, 52):  # the second shape is traced with a symbol
            q, k, v = inputs(length=length)
            torch.testing.assert_close(compiled(q, k, v), loss(q, k, v))
            torch.testing.assert_close(torch.autograd.grad(compiled(q, k, v), (q, k, v)),
                                       torch.autograd.grad(loss(q, k, v), (q, k, v)))

    def test_the_module_of_the_documentation(self):
        page = pathlib.Path(__file__).parents[2] / "docs/python.md"
        names = {}
        exec(re.search(r"```python\n(.*?)```", page.read_text(), re.DOTALL).group(1), names)
        torch.manual_seed(5)
        module = names["DilatedSelfAttention"](32, 4, [8, 64], [1, 2], causal=False, layout="cyclic")
        self.assertEqual(sorted(name for name, _ in module.named_parameters())[0], "inner_attn_ln.bias")
        x, padding = torch.randn(2, 50, 32), torch.zeros(2, 50, dtype=torch.bool)
        padding[1, 30:] = True
        y = module(x, padding)
        short = module(x[1:, :30])
        torch.testing.assert_close(y[1, :30], short[0], rtol=1e-5, atol=1e-5)  # what is masked does not matter
        torch.testing.assert_close(torch.compile(module, backend="aot_eager")(x, padding), y)
        y.square().sum().backward()
        self.assertTrue(all(bool(p.grad.isfinite().all()) for p in module.parameters()))

    def test_meta_tensors_have_the_shapes(self):
        q, k, v = (tensor.to("meta") for tensor in inputs(dtype=torch.bfloat16, gradient=False))
        out, lse = attention(q, k, v, [8], [1], True, "cyclic", None)
        self.assertEqual((out.shape, out.dtype), (q.shape, torch.bfloat16))
        self.assertEqual((lse.shape, lse.dtype), (q.shape[:3], torch.float32))

    def test_a_second_derivative_is_refused(self):
        q, k, v = inputs()
        out, _ = attention(q, k, v, [8], [1], True, "cyclic", None)
        with self.assertRaisesRegex(RuntimeError, "no second derivative"):
            torch.autograd.grad(out.sum(), q, create_graph=True)

    def test_what_cannot_be_is_refused_with_a_reason(self):
        q, k, v = inputs()
        for arguments, reason in ((([8, 16], [1], True, "cyclic", None), "2 segments but 1 rates"),
                                  (([8], [1], True, "spiral", None), "'spiral'"),
                                  (([0], [1], True, "cyclic", None), "below 1"),
                                  (([8], [1], True, "cyclic", torch.ones(2, 37)), "key mask"),
                                  (([8], [1], True, "cyclic", torch.ones(2, 36, dtype=torch.bool)), "key mask")):
            with self.assertRaisesRegex(RuntimeError, reason):
                attention(q, k, v, *arguments)
        with self.assertRaisesRegex(RuntimeError, "differ in shape"):
            attention(q, k[:, :5], v, [8], [1], True, "cyclic", None)


if __name__ == "__main__":
    unittest.main()
