"""The vault proxy: phantom tokens in, real credentials out."""
