"""OAuth logins: when a login is refreshed, and how its answer becomes the stored credential."""
