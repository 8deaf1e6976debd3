"""Archives on a Ray cluster: jobs that are killed, efficiency against one process, memory, ten million on paper."""
