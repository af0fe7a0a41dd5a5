"""When a world learns and is dreamt in, who learns from its dreams, and the watch over it."""
