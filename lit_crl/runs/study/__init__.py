"""Studies: the same task under several arms and seeds, run in parallel and compared."""
