"""How good the policy and the generator are, on levels that training never saw."""
