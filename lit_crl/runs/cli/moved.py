"""Where classes were that older configurations name, so that these can still be read."""

import re

#: Modules of older versions, and where what a configuration could name of them is now.
MOVED = {
    "exploration": "dqn",
    "strategy": "training",
    "screening": "curriculum",
    "level_replay": "curriculum",
}
OLD = re.compile(rf"\blit_crl\.({'|'.join(MOVED)})\.(?=[A-Z])")


def present(text: str) -> str:
    """A configuration's text in which old class paths are those of this version.

    >>> present("class_path: lit_crl.exploration.LinearEpsilon")
    'class_path: lit_crl.dqn.LinearEpsilon'
    """
    return OLD.sub(lambda found: f"lit_crl.{MOVED[found[1]]}.", text)
