"""Mathematics on tensors and the value types every floor speaks in; depends on torch, numpy and scipy only."""
