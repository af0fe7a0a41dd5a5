"""Who imagines: the world that follows an observation and an action, and life in it."""
