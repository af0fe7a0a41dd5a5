"""Help that appears at once, without the seconds that importing torch takes.

So neither this module nor ``lit_crl`` itself imports anything slow.
"""

import argparse
import io
import os
import sys
from collections.abc import Sequence

PROG = "python -m lit_crl"
DESCRIPTION = "A DQN learns to act; a GAN makes the levels it practises in."
STUDY_DESCRIPTION = (
    "Run every arm of a study with every seed in parallel, continuing where it stopped, and "
    "compare the arms: results.csv, table.md and figures in ROOT/NAME."
)
#: Each subcommand and what it does.
SUBCOMMANDS = {
    "fit": "Train the DQN and the GAN, test the policy, and write a report.",
    "validate": "Play the validation episodes with the policy of a checkpoint.",
    "test": "Play the test episodes with the policy of a checkpoint.",
    "predict": "Write levels that the GAN of a checkpoint generates, with pictures.",
    "play": "Film episodes of the policy of a checkpoint, as GIF or MP4.",
}
#: Subcommands with a separate command line, each in a package of ``lit_crl.runs``.
OTHERS = {
    "study": STUDY_DESCRIPTION,
    "dashboard": "Save a W&B workspace for the runs of a project.",
}
#: Help for Lightning's own options.
OPTIONS = {
    "seed_everything": "Seed of the weights and of all random streams, a whole number from 0 to "
    "2³² − 1.",
    "ckpt_path": "Checkpoint file, or last: the newest undamaged one of the run. fit continues "
    "from it, or starts afresh if nothing was saved yet; the other subcommands need one, and also "
    "take best: the run's best policy by validation.",
    "weights_only": "Without effect: checkpoints with more than tensors and plain values are "
    "refused, whatever it says.",
}


def speak_any_encoding() -> None:
    """Print ``?`` for letters that the output cannot show, for example on a Windows console."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def read_words() -> list[str]:
    """The words of the command line; in a C locale Python leaves UTF-8 in them undecoded."""
    return [
        os.fsencode(word).decode("utf-8", errors="replace") if not word.isprintable() else word
        for word in sys.argv[1:]
    ]


def answer_help(args: Sequence[str]) -> None:
    """Print the subcommands and exit, if the command line begins with ``--help``."""
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
