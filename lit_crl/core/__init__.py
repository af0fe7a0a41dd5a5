"""The ground: errors and checks, random streams, processes, clocks, tensor files, unit cubes."""
