"""Who makes levels: equations, networks for vectors and for maps, the GAN, its objectives."""
