"""Where real transitions come from: environments that are stepped, or a log in their place."""
