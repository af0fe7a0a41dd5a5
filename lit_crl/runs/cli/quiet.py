"""What other libraries say that users can do nothing about, silenced piece by piece."""

import logging
import os
import warnings


def quiet_libraries() -> None:
    """Silence what users can do nothing about, each by name."""
    # jsonargparse 4.49 deprecates functions that Lightning 2.6 still calls.
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    # torch 2.13 deprecates what Lightning 2.6 asks of its trees of batches.
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    # main() may be called from a notebook or a test, whose own arguments are not ours.
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter is intended")
    # Updates are made in float32 on purpose: values of neighbouring actions differ by little.
    warnings.filterwarnings("ignore", message="TensorFloat32 tensor cores .* available")
    # A ModelCheckpoint explains at length how to save weights from before a step.
    warnings.filterwarnings("ignore", message="Using ModelCheckpoint with manual optimization")
    # torch captures an empty graph itself, to set its memory pool up.
    warnings.filterwarnings("ignore", message="The CUDA Graph is empty")
    for name in ("utilities.rank_zero", "accelerators.cuda"):
        logging.getLogger(f"lightning.pytorch.{name}").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric.utilities.seed").setLevel(logging.WARNING)
    # torch 2.11 says for every matrix product on a GPU that it leaves it to cuBLAS.
    logging.getLogger("torch._inductor.select_algorithm").setLevel(logging.ERROR)
