"""What tools can do, from commands that were run in each tool's own environment."""
