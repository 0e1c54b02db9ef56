"""deduplicated: the layers, their index of candidate pairs, the verified pairs, and the families of these."""
