"""Check whether this processor can compute in bfloat16 (bf16).

MXNet 1.9.1 computes bf16 with oneDNN, which needs AVX-512. On other processors the first layer
fails, with a message that names neither the precision nor the processor.
"""

from __future__ import annotations

import mxnet as mx
from mxnet.contrib import amp

from symbols.graph import as_json
from train import machine
from train.errors import RunError

BF16_NEEDS = ("avx512f", "avx512bw", "avx512dq", "avx512vl")  # as /proc/cpuinfo names them


def is_bf16(symbol: mx.sym.Symbol) -> bool:
    """Whether a graph of ``tools/quantize.py`` computes in bf16."""
    return "amp_cast" in as_json(symbol)


def require_bf16(backend: str = "mxnet") -> None:
    """Raise ``RunError`` if MXNet, or OpenVINO, cannot compute in bf16 here."""
    if backend == "openvino":
        import openvino  # an extra, which the caller has found

        if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise RunError(f"OpenVINO has no bf16 for this processor, {machine.processor()}")
        return
    present = machine.instructions()
    missing = [name for name in BF16_NEEDS if name not in present] if present else []
    if missing:
        why = f"this processor, {machine.processor()}, lacks {' '.join(missing)}"
    elif not _computes():
        why = "MXNet does not use them here (an old system, or DNNL_MAX_CPU_ISA)"
    else:
        return
    needed = " ".join(BF16_NEEDS)
    raise RunError(f"bf16 in MXNet needs AVX-512 ({needed}): {why}; take int8 or fp32")


def _computes() -> bool:
    """Try one convolution, of ones by a one."""
    layer = mx.sym.Convolution(mx.sym.Variable("data"), kernel=(1, 1), num_filter=1, no_bias=True)
    shapes = {"data": (1, 1, 4, 4)}
    executor = amp.convert_symbol(layer, "bfloat16").simple_bind(mx.cpu(), "null", **shapes)
    for array in executor.arg_dict.values():
        array[:] = 1
    try:
        return bool((executor.forward()[0].asnumpy() == 1).all())
    except mx.base.MXNetError:
        return False
