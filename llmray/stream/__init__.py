"""Ray Data between a corpus and whoever learns from it."""
