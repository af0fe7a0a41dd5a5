"""When a run is saved, what is saved, and how it continues."""
