"""``python -m lit_crl``."""

import gc
import sys

from lit_crl.usage import answer_help


def run() -> None:
    """Answer a call for help at once; import torch and Lightning for everything else."""
    answer_help(sys.argv[1:])
    # What is imported stays, so searching it for garbage is a sixth of the start-up for nothing.
    gc.disable()
    from lit_crl import console

    gc.freeze()
    gc.enable()
    console.run()


if __name__ == "__main__":
    run()
