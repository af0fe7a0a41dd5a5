"""``python -m lit_crl``."""

from lit_crl.console import run

run()
