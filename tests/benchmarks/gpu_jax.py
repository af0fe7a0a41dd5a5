"""The yardstick on a GPU: the whole loop of ``contenders/jax_dqn.py`` at the sizes of ``gpu.py``.

``python tests/benchmarks/gpu_jax.py NUM_ENVS UPDATES BATCH SECONDS`` prints one line of JSON.
"""

import dataclasses
import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
FOLDER = Path(__file__).parent
sys.path[:0] = [str(FOLDER), str(FOLDER / "contenders")]

import protocol  # noqa: E402

#: Vector steps between two copies into the target network.
ITERATIONS = 50


def main(num_envs: int, updates: int, batch: int, seconds: float) -> None:
    """Run the loop for about so many seconds, and print its speed."""
    protocol.SCHEDULE = dataclasses.replace(
        protocol.SCHEDULE,
        env_steps=10**9,
        warmup=2 * num_envs,
        steps_per_update=num_envs,
        target_period=num_envs * ITERATIONS,
        capacity=128 * num_envs,
        batch=batch,
        layers=(4, 128, 128, 2),
    )
    import jax
    import jax.numpy as jnp
    import jax_dqn

    # Inside the loop the interpolation of epsilon does not compile on a GPU in jaxlib 0.11.2.
    jnp.interp = lambda *_: jnp.float32(0.1)
    one = jax_dqn.update
    jax_dqn.update = lambda carry: jax.lax.fori_loop(0, updates, lambda _, c: one(c), carry)

    def run(blocks: int) -> tuple[float, float]:
        started = time.perf_counter()
        key = jax.random.key(0)
        learn = jax.jit(lambda key: jax_dqn.learn(key, blocks)).lower(key).compile()
        compiled = time.perf_counter()
        jax.block_until_ready(learn(key))
        return compiled - started, time.perf_counter() - compiled

    compile_seconds, trial = run(10)
    blocks = max(1, round(10 * seconds / trial))
    _, took = run(blocks)
    steps = blocks * ITERATIONS
    found = {
        "updates_per_second": round(steps * updates / took),
        "env_steps_per_second": round(steps * num_envs / took),
        "compile_seconds": round(compile_seconds, 2),
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]), float(sys.argv[4]))
