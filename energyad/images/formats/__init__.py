"""Image formats: for each, a bounded check of the file's structure, and what is handed to a decoder.

A decoder never sees the file as it came. Each module reads the structure itself, refuses what is missing or without
end, and writes a plain file of the same pixels, which holds the coded pixels and what is needed to decode them alone.
"""
