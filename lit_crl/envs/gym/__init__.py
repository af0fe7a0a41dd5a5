"""Any Gymnasium environment behind the interface of the others."""
