"""``python -m lit_crl``."""

import gc
import os
import sys

from lit_crl.usage import answer_help, speak_any_encoding


def run() -> None:
    """Answer a call for help at once; import torch and Lightning for everything else."""
    speak_any_encoding()
    answer_help(sys.argv[1:])
    if os.getcwd() not in sys.path:  # `python -m lit_crl` finds my_env.py there: `lit-crl`, too
        sys.path.insert(0, os.getcwd())
    # What is imported stays, so searching it for garbage is a sixth of the start-up for nothing.
    gc.disable()
    try:
        from lit_crl import console
    except KeyboardInterrupt:
        sys.exit(130)
    gc.freeze()
    gc.enable()
    console.run()


if __name__ == "__main__":
    run()
