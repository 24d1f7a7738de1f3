"""One expert's matrix products on this CPU: packed for oneDNN against `F.linear`, and against a large product.

`python -m benchmarks.expert_compute [--threads N]` prints, per size, the median time of both, their ratio, and the
packed rate as a share of a square product's rate in the same run (4096 cubed). One thread by default, as a rank has
when ranks fill the cores.

Shapes: N rows, O output size, J input size.
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F

from benchmarks.timing import interleaved
from wingspan.runtime.model.slot_linear import packed_by_slot

SHAPES = {"hidden 1024, intermediate 512": (512, 1024), "hidden 7168, intermediate 2048": (2048, 7168)}
ROWS = (1, 4, 16, 64, 256, 1024)
SQUARE = 4096


@torch.inference_mode()
def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1, help="threads of each product")
    parser.add_argument("--seconds", type=float, default=1.0, help="time for each line")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(
        f"{'dtype':9} {'shape':31} {'rows':>5} {'F.linear':>10} {'packed':>10} {'ratio':>6} {'of 4096^3':>9}"
    )
    for dtype in (torch.float32, torch.bfloat16):
        square = torch.randn(SQUARE, SQUARE).to(dtype)
        seconds = interleaved({"square": lambda x=square: x @ x}, 0.0, most_rounds=3)["square"]
        square_rate = 2 * SQUARE**3 / seconds
        for name, (out_size, J) in SHAPES.items():
            weight_OJ = torch.randn(out_size, J).to(dtype)
            packed = [torch.ops.mkldnn._reorder_linear_weight(weight_OJ)]
            for N in ROWS:
                x_NJ = torch.randn(N, J).to(dtype)
                times = interleaved(
                    {
                        "linear": lambda x=x_NJ, w=weight_OJ: F.linear(x, w),
                        "packed": lambda x=x_NJ, p=packed, n=N: packed_by_slot(x, [n], p, None),
                    },
                    arguments.seconds,
                    most_rounds=1000,
                )
                rate = 2 * N * out_size * J / times["packed"]
                print(
                    f"{str(dtype).removeprefix('torch.'):9} {name:31} {N:>5} {times['linear'] * 1e6:>7,.0f} us "
                    f"{times['packed'] * 1e6:>7,.0f} us {times['linear'] / times['packed']:>5.2f}x "
                    f"{rate / square_rate:>8.0%}",
                    flush=True,
                )
        print(f"{str(dtype).removeprefix('torch.'):9} {SQUARE}^3: {square_rate / 1e9:,.0f} GFLOP/s")


if __name__ == "__main__":
    main()
