"""The verbs of the git gate."""
