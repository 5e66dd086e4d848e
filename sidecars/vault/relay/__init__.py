"""One exchange: the request, the answer, and how far it is."""
