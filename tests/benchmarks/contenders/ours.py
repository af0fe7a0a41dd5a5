"""lit_crl as its users run it: the command line with cartpole.yaml, then its summary.json."""

import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from tempfile import TemporaryDirectory

from protocol import EPISODES, SCHEDULE, Run, main, versions

CONFIG = Path(__file__).parents[1] / "cartpole.yaml"


def train(args: Namespace) -> Run:
    """Train in a temporary folder; every compilation starts from an empty cache."""
    with TemporaryDirectory() as root:
        command = [sys.executable, "-m", "lit_crl", "fit", f"--config={CONFIG}"]
        command += [f"--trainer.default_root_dir={root}", f"--seed_everything={args.seed}"]
        command += [
            f"--data.collect.env_steps={args.env_steps}",
            f"--data.evaluation.test_episodes={EPISODES}",
        ]
        if args.compiled:
            command.append("--model.compile=true")
        subprocess.run(
            command,
            check=True,
            cwd=CONFIG.parents[2],
            env=os.environ | {"TORCHINDUCTOR_CACHE_DIR": f"{root}/inductor"},
            stdout=sys.stderr,
        )
        summary = json.loads(next(Path(root).rglob("summary.json")).read_text())
    # Others compile and evaluate outside the clock, too.
    compiling = summary["seconds_compile"] or 0.0
    evaluating = summary["seconds_evaluation"] or 0.0
    whole = args.env_steps >= SCHEDULE.env_steps
    return Run(
        env_steps=summary["env_steps"],
        updates=summary["updates"],
        seconds=summary["wall_seconds"] - compiling - evaluating,
        compile_seconds=compiling,
        greedy_return=summary["target_return_mean"] if whole else None,
        versions=versions("lit_crl", "lightning", "torch"),
    )


if __name__ == "__main__":
    main(train, "--compiled")
