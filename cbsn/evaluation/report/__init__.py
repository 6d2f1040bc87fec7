"""Showing what denoisers do: a page of HTML, and a sheet of pictures for a paper."""
