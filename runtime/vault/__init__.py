"""The verbs of the vault and of logins."""
