"""The web page in front of any endpoint."""
