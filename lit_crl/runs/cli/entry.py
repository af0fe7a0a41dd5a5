"""The console entry, which reports an error in one sentence, without a traceback."""

import os
import re
import sys
from importlib import import_module
from typing import NoReturn

import torch
from jsonargparse import ArgumentError
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf.errors import OmegaConfBaseException

from lit_crl.core import distributed
from lit_crl.core.checks import ConfigError, RunError
from lit_crl.core.distributed import print_once
from lit_crl.runs.checkpoints.signals import RunStopped
from lit_crl.runs.cli.main import main

#: Parts of jsonargparse's messages that only its own authors can read.
SCAFFOLDS = (
    r"Not of type WholeNumber: ",
    r"- Expected a path but \S+ either not accessible or invalid - ",
    r"Type [\w.]*Callable\[\[.*?\], [\w.]+\] expects a function or a callable class: ",
    r"Type an import path of a function or class expects a function or a callable class: ",
)


def run() -> None:
    """Run the command line, and report an error in one sentence.

    The exit status is 2 for a mistake of the user's, 1 for a run that failed later, and 128 plus
    the signal's number for a run that a signal stopped.
    """
    try:
        main()
    except RunStopped as stopped:
        print_once(f"\n{stopped}")
        sys.exit(128 + stopped.signum)
    except KeyboardInterrupt:
        sys.exit(130)
    except RunError as error:
        notes = getattr(error, "__notes__", [])
        print("lit_crl: " + "; ".join([str(error), *notes]), file=sys.stderr)
        sys.exit(1)
    except (ConfigError, ArgumentError, MisconfigurationException) as error:
        refuse(error)
    except OmegaConfBaseException as error:
        refuse(f"an interpolation cannot be resolved: {error}")
    except (RuntimeError, MemoryError, TypeError) as error:
        if needs_more_ram(error):
            refuse(
                "these settings need more RAM than there is: lower data.replay.capacity, "
                "data.collect.num_envs, data.curriculum.tried, data.curriculum.visited, the batch "
                "sizes or the networks' widths"
            )
        if not distributed.lost_another(error):
            raise
        print(
            f"lit_crl: process {distributed.process_rank()} lost another one, which has died or "
            "does not answer: see what that one printed, and continue with --ckpt_path last",
            file=sys.stderr,
        )
        # A usual exit waits for the other process, which may never answer.
        os._exit(1)
    except ValueError as error:
        # jsonargparse wraps what a nested class refuses.
        if isinstance(error.__cause__, ConfigError):
            refuse(error.__cause__)
        raise


def needs_more_ram(error: BaseException) -> bool:
    """Whether an error means that a tensor did not fit into RAM, of the machine or of a GPU."""
    words = ("can't allocate memory", "Storage size calculation overflowed", "Overflow when")
    kinds = (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, kinds) or any(word in str(error) for word in words)


def import_failure(message: str) -> str | None:
    """Why the module that a message names cannot be imported; None if it can be imported."""
    named = r"(?:Got value:|: (?=\S+ is none of)|class_path=)\s*'?([A-Za-z_][\w.]*)"
    for path in re.findall(named, message):
        module = path.rpartition(".")[0]
        if not module or module in sys.modules:
            continue
        try:
            import_module(module)
        except ModuleNotFoundError as error:
            if error.name and f"{module}.".startswith(f"{error.name}."):
                return f"there is no module {error.name}: start in its folder, or install it"
            return f"importing {module} failed: {error}"
        except Exception as error:  # a user's module may raise anything
            return f"importing {module} failed: {type(error).__name__}: {error}"
    return None


def refuse(error: BaseException | str) -> NoReturn:
    """Print an error in one sentence, and exit with status 2."""
    print(f"lit_crl: {one_sentence(str(error))}", file=sys.stderr)
    sys.exit(2)


def one_sentence(message: str) -> str:
    """A library's message on one line, without the parts that only Python programmers can read."""
    sentence = " ".join(message.split())
    sentence = re.sub(r"<class '([\w.]+)'>", r"\1", sentence)
    sentence = sentence.replace(
        "collections.abc.Callable[..., typing.Any]", "an import path of a function or class"
    )
    sentence = re.sub(r"typing\.Literal\[([^]]*)\]", r"value out of \1", sentence)
    sentence = re.sub(r'Parser key "([^"]+)":', r"\1:", sentence)
    for scaffold in SCAFFOLDS:
        sentence = re.sub(scaffold, "", sentence)
    sentence = re.sub(
        r"Does not validate against any of the Union subtypes Subtypes: \[(.*?)\] Errors: .*"
        r"Given value type: \w+ Given value: (.*?)(\. Got value|$)",
        r"\2 is none of these: \1\3",
        sentence,
    )
    sentence = sentence.replace("lit_crl.runs.cli.parser.WholeNumber", "whole number")
    # Users set seed_everything; the learner's seed is a copy of it.
    sentence = sentence.replace("model.seed:", "seed_everything:")
    if failure := import_failure(sentence):
        sentence = f"{sentence.partition(':')[0]}: {failure}"
    if sentence.startswith(("unrecognized arguments", "Key ", "Problem in default config")):
        sentence += "; `python -m lit_crl fit --help` lists every key"
    return sentence
