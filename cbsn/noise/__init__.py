"""The noise of pictures without clean counterparts: how much there is, of what kind, and where."""
