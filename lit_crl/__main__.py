"""``python -m lit_crl``."""

from lit_crl.cli import run

run()
