"""Motion between neighbouring frames, which makes them different pictures rather than two shots."""


def warn_of_motion(frames):
    pass
