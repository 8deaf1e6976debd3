"""What happens to results when the watcher is killed, and to damaged images."""
