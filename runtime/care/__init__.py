"""The verbs that look after the host: setup, status, doctor, heal, logs, agents, config."""
