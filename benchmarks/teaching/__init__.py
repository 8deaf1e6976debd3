"""What a model gains from labels by people."""
