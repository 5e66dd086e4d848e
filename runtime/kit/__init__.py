"""What every verb uses: surroundings, configuration, files, prompts, log lines."""
