"""The world GAN: what follows an observation and an action, imagined."""
