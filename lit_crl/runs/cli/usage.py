"""What the command line offers, told before the seconds that importing torch takes.

So nothing slow is imported here, nor by ``lit_crl`` itself.
"""

import argparse
import io
import os
import sys
from collections.abc import Sequence

PROG = "python -m lit_crl"
DESCRIPTION = "A DQN learns to act; a GAN makes the levels it practises in."
STUDY_DESCRIPTION = (
    "Run every arm of a study with every seed in parallel, going on where it stopped, and compare "
    "the arms: results.csv, table.md and figures in ROOT/NAME."
)
#: Each subcommand and what it does.
SUBCOMMANDS = {
    "fit": "Train the DQN and the GAN, test the policy, and write a report.",
    "validate": "Play the validation episodes with the policy of a checkpoint.",
    "test": "Play the test episodes with the policy of a checkpoint.",
    "predict": "Write levels that the GAN of a checkpoint generates, with pictures.",
    "play": "Film episodes of the policy of a checkpoint, as GIF or MP4.",
}
#: Subcommands with a command line of their own, each a module in ``lit_crl.runs``.
OTHERS = {
    "study": STUDY_DESCRIPTION,
    "dashboard": "Save a W&B workspace for the runs of a project.",
}
#: What options that Lightning has for every program mean in this one.
OPTIONS = {
    "seed_everything": "Seed of the weights and of all random streams, a whole number from 0 to "
    "2³² − 1.",
    "ckpt_path": "Checkpoint file, or last: the newest undamaged one of the run. fit goes on from "
    "it, or starts afresh if nothing was saved yet; the other subcommands need one.",
    "weights_only": "Without effect: checkpoints with more than tensors and plain values are "
    "refused, whatever it says.",
}


def speak_any_encoding() -> None:
    """Let output that cannot show a letter, on a Windows console, say, show a ``?`` for it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def read_words() -> list[str]:
    """The words of the command line; in a C locale they would be UTF-8 that nobody has read."""
    return [
        os.fsencode(word).decode("utf-8", errors="replace") if not word.isprintable() else word
        for word in sys.argv[1:]
    ]


def answer_help(args: Sequence[str]) -> None:
    """Print what there is and exit, if the command line asks for that before a subcommand."""
    if not args or args[0] not in ("-h", "--help"):
        return
    parser = argparse.ArgumentParser(
        prog=PROG,
        description=DESCRIPTION,
        epilog=f"Every setting of a subcommand: {PROG} fit --help",
    )
    subcommands = parser.add_subparsers(title="subcommands", required=True)
    for name, does in (SUBCOMMANDS | OTHERS).items():
        subcommands.add_parser(name, help=does)
    parser.print_help()
    sys.exit()
