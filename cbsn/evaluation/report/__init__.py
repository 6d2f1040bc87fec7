"""Shows what denoisers do, as an HTML page and as a contact sheet for a paper."""
