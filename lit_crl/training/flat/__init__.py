"""Networks whose parameters are one vector each, and updates of them."""
