"""The same updates as compiled graphs on flat parameters."""
