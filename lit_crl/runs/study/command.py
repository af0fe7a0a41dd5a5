"""``python -m lit_crl study``."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from lit_crl.runs.cli.usage import STUDY_DESCRIPTION, speak_any_encoding


def main(args: Sequence[str] | None = None) -> None:
    """Run the missing runs of a study and compare its arms; report errors in one sentence."""
    speak_any_encoding()
    parser = argparse.ArgumentParser(prog="python -m lit_crl study", description=STUDY_DESCRIPTION)
    parser.add_argument("study", help="the study's YAML file, e.g. conf/study/point_mass.yaml")
    parser.add_argument("--root", type=Path, default=Path("studies"), help="where studies live")
    parser.add_argument(
        "--tune",
        action="store_true",
        help="run the study's trials of every arm in its place, on seeds that it does not report",
    )
    parser.add_argument(
        "--processes",
        type=int,
        help="processes at a time, a core each (default: as many as there are free cores)",
    )
    parser.add_argument(
        "--backend",
        choices=("local", "ray"),
        default="local",
        help="where they run: on this machine, or on a Ray cluster (needs the extra `ray`, and a "
        "file system that all its machines share)",
    )
    parser.add_argument("--address", help="of the Ray cluster (default: what Ray finds here)")
    given = parser.parse_args(args)

    from lit_crl.core.checks import ConfigError, RunError, positive
    from lit_crl.runs.cli.entry import refuse
    from lit_crl.runs.study.backends import connect
    from lit_crl.runs.study.runner import interruptible
    from lit_crl.runs.study.study import run_study, tune_study

    try:
        if given.processes is not None:
            positive(processes=given.processes)
        backend = partial(connect, given.backend, given.processes, given.address)
        with interruptible():
            (tune_study if given.tune else run_study)(given.study, given.root, backend)
    except ConfigError as error:
        refuse(error)
    except RunError as error:
        print(f"lit_crl: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("Stopped; the same command goes on from here.", file=sys.stderr)
        sys.exit(130)
