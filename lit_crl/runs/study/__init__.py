"""Studies: one task under several arms and seeds, run in parallel and compared."""
