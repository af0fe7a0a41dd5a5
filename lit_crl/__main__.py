"""``python -m lit_crl``."""

import gc
import os
import sys
from importlib import import_module

from lit_crl.runs.cli.usage import OTHERS, answer_help, speak_any_encoding


def run() -> None:
    """Answer a call for help at once; import torch and Lightning for everything else."""
    speak_any_encoding()
    answer_help(sys.argv[1:])
    if os.getcwd() not in sys.path:  # `python -m lit_crl` finds my_env.py there: `lit-crl`, too
        sys.path.insert(0, os.getcwd())
    if sys.argv[1:2] and sys.argv[1] in OTHERS:
        import_module(f"lit_crl.runs.{sys.argv[1]}.command").main(sys.argv[2:])
        return
    # What is imported stays, so searching it for garbage is a sixth of the start-up for nothing.
    gc.disable()
    try:
        from lit_crl.runs.cli import entry
    except KeyboardInterrupt:
        sys.exit(130)
    gc.freeze()
    gc.enable()
    entry.run()


if __name__ == "__main__":
    run()
