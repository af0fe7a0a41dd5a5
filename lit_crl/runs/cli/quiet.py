"""Messages of other libraries that users cannot act on."""

import logging
import os
import warnings


def quiet_libraries() -> None:
    """Silence these messages, each by name."""
    # jsonargparse 4.49 deprecates functions that Lightning 2.6 still calls.
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    # torch 2.13 deprecates a function that Lightning 2.6 still calls.
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    # main() takes its arguments from notebooks and tests, too.
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter is intended")
    # Updates use float32 on purpose: the values of two actions often differ by little.
    warnings.filterwarnings("ignore", message="TensorFloat32 tensor cores .* available")
    # Lightning's own logging interval has no part in what is recorded.
    warnings.filterwarnings("ignore", message="The number of training batches .* is smaller than")
    # ModelCheckpoint explains at length how to save the weights from before a step.
    warnings.filterwarnings("ignore", message="Using ModelCheckpoint with manual optimization")
    # torch itself captures an empty graph to prepare its memory pool.
    warnings.filterwarnings("ignore", message="The CUDA Graph is empty")
    for name in ("utilities.rank_zero", "accelerators.cuda"):
        logging.getLogger(f"lightning.pytorch.{name}").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric.utilities.seed").setLevel(logging.WARNING)
    # torch 2.11 reports for every matrix product on a GPU that it uses cuBLAS.
    logging.getLogger("torch._inductor.select_algorithm").setLevel(logging.ERROR)
