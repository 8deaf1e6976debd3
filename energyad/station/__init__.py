"""A station described in one file: images of a part come in, one verdict a part goes out to machines and people."""
