"""Everything that waits for the operator, and the answer to it."""
