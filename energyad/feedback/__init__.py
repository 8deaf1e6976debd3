"""Learning from people: what reviewers say of images, and what a model learns from that."""
