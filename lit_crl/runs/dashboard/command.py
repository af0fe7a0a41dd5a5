"""``python -m lit_crl dashboard``: save the W&B workspace of a project."""

import argparse
import sys
from collections.abc import Sequence

from lit_crl.runs.cli.usage import speak_any_encoding


def main(args: Sequence[str] | None = None) -> None:
    """Save the workspace and print its address; report errors in one sentence."""
    speak_any_encoding()
    parser = argparse.ArgumentParser(
        prog="python -m lit_crl dashboard",
        description="Save a W&B workspace for lit_crl's runs, so that a team sees the same panels "
        "(needs a W&B account and the extra `workspaces`).",
    )
    parser.add_argument("--entity", required=True, help="team or user that the project belongs to")
    parser.add_argument("--project", default="lit_crl", help="the project (default: lit_crl)")
    parser.add_argument("--name", default="lit_crl", help="name of the workspace")
    given = parser.parse_args(args)

    from lit_crl.core.checks import ConfigError, RunError
    from lit_crl.runs.cli.entry import refuse
    from lit_crl.runs.dashboard.workspace import save

    try:
        print(f"Saved: {save(given.entity, given.project, given.name)}")
    except ConfigError as error:
        refuse(error)
    except RunError as error:
        print(f"lit_crl: {error}", file=sys.stderr)
        sys.exit(1)
