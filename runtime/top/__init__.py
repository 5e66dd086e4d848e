"""`terok top`: a live view of every container, and of what waits for a decision."""
