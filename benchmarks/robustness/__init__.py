"""What happens to results when the program is killed, and to the service when it is asked for too much."""
