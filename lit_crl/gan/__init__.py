"""The level GAN: equations, networks for vectors and for maps, and its objectives."""
