"""Weights: presets, loading, answering, versions."""
