"""A page to denoise pictures on, for those without a terminal: `cbsn app`."""
