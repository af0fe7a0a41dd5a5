"""lit_crl as its users run it: the command line with a file, then its summary.json."""

import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from tempfile import TemporaryDirectory

from protocol import EPISODES, SCHEDULE, Run, main, versions
from tasks import TASK, TASKS

FOLDER = Path(__file__).parents[1]


def settings() -> dict[str, object]:
    """What the schedule says beside the file of the task."""
    s = SCHEDULE
    if TASK is TASKS["mountain_car"]:  # all is in the file
        return {}
    common = {
        "model.dqn.target_rate": s.target_rate,
        "model.dqn.target_period": s.target_period // s.steps_per_update,
    }
    if not s.convolutions:
        return common
    falling = {"start": s.epsilon_start, "end": s.epsilon_end, "steps": s.epsilon_steps}
    exploration = {"class_path": "lit_crl.dqn.LinearEpsilon", "init_args": falling}
    adam = {"lr": s.learning_rate, "fused": True}
    return common | {
        "data.env.id": TASK.env_id,
        "data.collect.warmup": s.warmup,
        "data.collect.gamma": s.gamma,
        "data.collect.exploration": json.dumps(exploration),
        "data.replay.capacity": s.capacity,
        "data.replay.batch_size": s.batch,
        "model.network.hidden": list(s.layers[1:-1]),
        "model.dqn.optimizer": json.dumps({"class_path": "torch.optim.Adam", "init_args": adam}),
    }


def search_path() -> str:
    """Where the task's environments are found, beside all else."""
    return os.pathsep.join([str(FOLDER), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])


def train(args: Namespace) -> Run:
    """Train in a temporary folder; every compilation starts from an empty cache."""
    with TemporaryDirectory() as root:
        command = [sys.executable, "-m", "lit_crl", "fit", f"--config={TASK.config}"]
        command += [f"--trainer.default_root_dir={root}", f"--seed_everything={args.seed}"]
        command += [
            f"--data.collect.env_steps={args.env_steps}",
            f"--data.evaluation.test_episodes={EPISODES}",
        ]
        command += [f"--{name}={value}" for name, value in settings().items()]
        if args.compiled:
            command.append("--model.compile=true")
        subprocess.run(
            command,
            check=True,
            cwd=FOLDER.parents[1],
            env=os.environ
            | {"TORCHINDUCTOR_CACHE_DIR": f"{root}/inductor", "PYTHONPATH": search_path()},
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
