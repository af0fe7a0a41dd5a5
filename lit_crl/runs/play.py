"""``python -m lit_crl play``: films of the greedy policy of a checkpoint."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lit_crl.core import checks
from lit_crl.core.checks import ConfigError
from lit_crl.core.distributed import print_once
from lit_crl.core.seeding import random_stream, stream_seed
from lit_crl.core.tensor_files import read_learner
from lit_crl.evaluation.protocol import greedy
from lit_crl.runs.folders import run_of
from lit_crl.training.datamodule import ReplayDataModule
from lit_crl.training.learner import CreativeLearner

if TYPE_CHECKING:
    from lit_crl.runs.pictures.recording import Recording

Format = Literal["gif", "mp4", "both"]

#: Levels that are generated for each level that is played, because some may be illegal.
CANDIDATES = 16


class FilmTrainer(Trainer):
    """A Trainer that can also film the policy."""

    def play(
        self,
        model: CreativeLearner,
        datamodule: ReplayDataModule,
        ckpt_path: str | None = None,
        episodes: int = 3,
        levels: list[str] | None = None,
        format: Format = "gif",
        fps: int = 20,
        dream: bool = False,
    ) -> None:
        """Film episodes of a checkpoint's greedy policy, one env step a frame.

        Args:
            model: A learner like the checkpoint's.
            datamodule: Data with the environment.
            ckpt_path: Checkpoint to play, or 'last', or 'best'.
            episodes: Episodes of each kind of levels.
            levels: Kinds of levels, a film each: ``target``, ``generated``, ``reference``, or the
                name of held-out ones. Default: target, and generated if the run trained a GAN.
            format: Of the films: ``gif``, ``mp4`` (pip install 'lit_crl[video]') or ``both``.
            fps: Frames a second, 1 to 50.
            dream: Film real evaluation episodes with the world's dreams beside them instead: from
                the same start, under the same actions.

        Raises:
            ConfigError: If a number is out of range, levels of a kind do not exist, or there is no
                world to dream.
        """
        from lit_crl.runs.pictures.films import check_films, film, writers

        checks.positive(episodes=episodes)
        check_films(format, fps)
        if dream and levels is not None:
            raise ConfigError(
                "dream is true, which films the task's own episodes, but levels is given: leave "
                "one of them out"
            )
        checkpoint = Path(str(ckpt_path))
        saved = read_learner(checkpoint)
        datamodule.setup("predict")
        model.build(datamodule.env)
        model.on_load_checkpoint(saved)
        model.load_state_dict(saved["state_dict"])
        model.to(datamodule.env.device)
        if dream:
            film_dreams(model, datamodule, episodes, format, fps, run_of(checkpoint) / "films")
            return
        usual = ["target", "generated"] if model.gan_updates else ["target"]
        kinds = usual if levels is None else levels
        chosen = {kind: levels_of(kind, episodes, model, datamodule) for kind in kinds}
        for kind, starts in chosen.items():
            recordings = record(kind, starts, episodes, model, datamodule)
            for ending, write in writers(format).items():
                path = run_of(checkpoint) / "films" / f"{kind}.{ending}"
                write(film(recordings, fps), path, fps)
                solved = [recording.success for recording in recordings]
                known = "" if None in solved else f", {sum(map(bool, solved))} solved"
                print_once(f"{len(recordings)} episodes in {kind} levels{known}: {path}")


def film_dreams(
    learner: CreativeLearner,
    data: ReplayDataModule,
    episodes: int,
    format: Format,
    fps: int,
    folder: Path,
) -> None:
    """Write films of real evaluation episodes and of dreams under the same actions, side by side.

    Raises:
        ConfigError: If there is no world, or its observations cannot be drawn.
    """
    from lit_crl.runs.pictures.dream_film import NAME, beside_of_run, film_beside
    from lit_crl.runs.pictures.films import writers

    found = beside_of_run(learner, data, episodes)
    for ending, write in writers(format).items():
        path = folder / f"{NAME}.{ending}"
        write(film_beside(found, fps), path, fps)
        print_once(f"{len(found)} episodes, and the world's dreams of them: {path}")


def record(
    kind: str, levels: Tensor | None, n: int, learner: CreativeLearner, data: ReplayDataModule
) -> "list[Recording]":
    """Play and record an episode in each of ``levels``, or ``n`` episodes if there are none."""
    from lit_crl.runs.pictures.recording import picture_env, record_episodes

    count = n if levels is None else len(levels)
    titles = [f"{kind} level {number + 1}" for number in range(count)]
    if levels is not None and learner.gan_updates and levels.isfinite().all():
        p_hat = learner.success_probability(levels).tolist()
        titles = [f"{title}, p̂ {p:.2f}" for title, p in zip(titles, p_hat, strict=True)]
    return record_episodes(
        greedy(learner, data.env.device),
        picture_env(data.make_env, count, data.env.device),
        seed=stream_seed(data.seed, f"play {kind}") % 2**31,
        levels=levels,
        titles=titles,
    )


def levels_of(kind: str, n: int, learner: CreativeLearner, data: ReplayDataModule) -> Tensor | None:
    """At most ``n`` levels [m, d] of a kind; None: the task's own resets.

    Generated levels are legal ones, of ``data.evaluation.difficulty`` if that is given.

    Raises:
        ConfigError: If there are no levels of that kind.
    """
    env, rng = data.env, random_stream(data.seed, f"play {kind}", device=data.env.device)
    if kind == "target":
        return None if env.level_space is None else env.target_levels(n, rng)
    if kind in ("generated", "reference") and not getattr(env, "has_levels", True):
        raise ConfigError(
            f"levels has {kind!r}, but levels of this task are states that its training has "
            "visited, which only training has: use target"
        )
    if kind == "generated":
        if not learner.gan_updates:
            raise ConfigError(
                "levels has 'generated', but this run has trained no generator: use target"
            )
        candidates = learner.generate_levels(CANDIDATES * n, data.settings.evaluation.difficulty)
        legal = candidates[env.valid(candidates)][:n]
        if not len(legal):
            raise ConfigError(f"none of {len(candidates)} generated levels is legal: use target")
        return legal
    if kind == "reference" and env.level_space is not None:
        return env.reference_levels(n, rng)
    heldout = env.heldout()
    if kind in heldout:
        found = heldout[kind]
        return found[torch.linspace(0, len(found) - 1, min(n, len(found))).long()]
    names = ["target", "generated", "reference", *heldout] if env.level_space else ["target"]
    raise ConfigError(f"levels has {kind!r}, which this task lacks: use {', '.join(names)}")
