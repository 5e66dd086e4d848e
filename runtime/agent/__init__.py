"""From a project directory to an agent at work: images, names, logins, and the verbs of such a container."""
