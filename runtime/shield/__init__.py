"""The verbs of the shield."""
