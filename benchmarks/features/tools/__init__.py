"""A module for each tool: a probe for each feature that it has, and the words that others were searched by."""
