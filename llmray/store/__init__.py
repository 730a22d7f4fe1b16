"""Where it lives: paths, run folders, journals and report pages."""
