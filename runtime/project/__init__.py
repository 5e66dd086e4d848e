"""The project file `.terok.yml`: what may stand in it, what of it needs the operator's trust, and how one is begun."""

FILE = ".terok.yml"
