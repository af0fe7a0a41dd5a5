"""Training from Python: a whole run as one call, and a Trainer with the settings of a run."""

import signal
from collections.abc import Mapping
from typing import Any

import yaml
from jsonargparse import ArgumentError
from lightning.pytorch import Trainer

from lit_crl.core.checks import ConfigError
from lit_crl.core.distributed import print_once
from lit_crl.core.tensor_files import plain
from lit_crl.runs import folders
from lit_crl.runs.callbacks import EnvStepProgress
from lit_crl.runs.checkpoints.signals import RunStopped
from lit_crl.runs.cli import main as cli
from lit_crl.runs.cli.arguments import flags
from lit_crl.runs.cli.entry import one_sentence
from lit_crl.runs.cli.quiet import quiet_libraries
from lit_crl.runs.naming import is_plain, label
from lit_crl.runs.policy import Policy, load
from lit_crl.training.renamed import GROUPS


def train(experiment: str | None = None, **settings: Any) -> Policy:
    """Run ``python -m lit_crl fit``, and return the policy that it trained.

    The run has its own folder, as on the command line. An interrupt (Ctrl-C, or the stop button of
    a notebook) finishes the running batch, saves, prints how to continue, and returns the policy as
    it is then.

    Args:
        experiment: One of ``conf/experiment/``; None: the default, or that of ``config``.
        **settings: As in the YAML files: ``data={"collect": {"env_steps": 60_000}}``,
            ``model={"network": {"hidden": [64, 64]}}``, ``seed_everything=3``,
            ``config="my.yaml"``. Where a file names a class or a function, you may give the object
            itself: ``data={"env": MyEnv}``,
            ``model={"dqn": {"optimizer": functools.partial(SGD, lr=0.1)}}``,
            ``trainer={"callbacks": [MyCallback()]}``, or ``callbacks=[...]`` for short.

    Returns:
        The policy of the newest checkpoint, on the CPU.

    Raises:
        ConfigError: If a setting is wrong.
    """
    if settings.get("seeds", 1) != 1:
        raise ConfigError("train() gives one policy: call it once for each seed_everything")
    given = ({} if experiment is None else {"experiment": experiment}) | _dotted(settings)
    if added := [*given.pop("callbacks", ())]:
        given["trainer.callbacks"] = [*(given.get("trainer.callbacks") or ()), *added]
    objects = {key: value for key, value in given.items() if not is_plain(value)}
    words = flags({key: value for key, value in given.items() if key not in objects})
    if "data.env" in objects and not {"experiment", "config"} & given.keys():
        objects["experiment"] = label(objects["data.env"])
    try:
        folder = cli.main(["fit", *words], objects).run_folder
    except RunStopped as stopped:
        if stopped.signum != signal.SIGINT or stopped.run is None:
            raise
        print_once(str(stopped))
        folder = stopped.run
    except ArgumentError as error:
        raise ConfigError(one_sentence(str(error))) from error
    return load(folder)


def trainer(**settings: Any) -> Trainer:
    """A Lightning Trainer with the settings of ``conf/default.yaml``, and without a logger.

    Args:
        **settings: Arguments of ``Trainer``, which override these; ``callbacks`` as a list.
    """
    quiet_libraries()
    file = folders.conf_folder() / "default.yaml"
    defaults = yaml.safe_load(file.read_text(encoding="utf-8"))["trainer"]
    callbacks = [*settings.pop("callbacks", ())]
    if settings.get("enable_progress_bar", True):
        callbacks.append(EnvStepProgress())
    return Trainer(**{**defaults, "logger": False, **settings}, callbacks=callbacks)


def _dotted(settings: Mapping[str, Any], within: str = "") -> dict[str, Any]:
    """Settings by dotted keys; what is inside a single setting stays together.

    >>> _dotted({"seed_everything": 3, "data": {"curriculum": {"mix": {"gan": 1.0}}}})
    {'seed_everything': 3, 'data.curriculum.mix': {'gan': 1.0}}
    """
    found: dict[str, Any] = {}
    for name, value in plain(settings).items():
        key = f"{within}{name}"
        is_group = isinstance(value, Mapping) and (within == "" or key in GROUPS)
        found |= _dotted(value, f"{key}.") if is_group and value else {key: value}
    return found
