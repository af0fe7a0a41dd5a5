"""What the core could reach: its matrix products, and the updates that they alone would allow."""

import json
from itertools import pairwise

import torch
from protocol import SCHEDULE
from torch.utils.benchmark import Timer

#: (m, k, n) of the products that are timed: a large one, and the largest of an update.
LARGE, LAYER = (1024, 1024, 1024), (SCHEDULE.batch, SCHEDULE.layers[1], SCHEDULE.layers[2])


def update_flops(double: bool = False) -> int:
    """Floating-point operations in the matrix products of one DQN update.

    A product [m, k] @ [k, n] takes 2·m·k·n. The networks run forward on s and on s' (double DQN:
    the online one on s', too); backward, every layer makes ∂L/∂W, and every layer but the first
    ∂L/∂x, each as large as its forward product.
    """
    first, *rest = (
        2 * SCHEDULE.batch * fan_in * fan_out for fan_in, fan_out in pairwise(SCHEDULE.layers)
    )
    forward = first + sum(rest)
    return (3 if double else 2) * forward + forward + sum(rest)


def gflops(m: int, k: int, n: int) -> float:
    """Best measured 10⁹ operations per second of one product in float32 on one thread."""
    operands = {"a": torch.rand(m, k), "b": torch.rand(k, n), "out": torch.empty(m, n)}
    timer = Timer("torch.mm(a, b, out=out)", "import torch", globals=operands)
    return 2e-9 * m * k * n / min(timer.blocked_autorange(min_run_time=1).times)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps({"large": gflops(*LARGE), "layer": gflops(*LAYER)}))
