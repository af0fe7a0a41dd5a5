"""Dashboards: Weights & Biases and TensorBoard, which show a run while it trains."""
