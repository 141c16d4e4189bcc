"""Score models over benchmark sets."""
