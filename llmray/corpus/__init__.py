"""Pure data: records, where they are read from, and what is done to them before a model sees them."""
