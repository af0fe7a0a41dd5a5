"""Old places of classes, so that older configurations can still be read."""

import re

#: Modules of older versions that a configuration may name, and the packages of their classes now.
MOVED = {
    "exploration": "dqn",
    "strategy": "training",
    "screening": "curriculum",
    "level_replay": "curriculum",
}
OLD = re.compile(rf"\blit_crl\.({'|'.join(MOVED)})\.(?=[A-Z])")


def present(text: str) -> str:
    """A configuration's text with the class paths of this version.

    >>> present("class_path: lit_crl.exploration.LinearEpsilon")
    'class_path: lit_crl.dqn.LinearEpsilon'
    """
    return OLD.sub(lambda found: f"lit_crl.{MOVED[found[1]]}.", text)
