"""The errors a user can meet; each message says what was received and what to do."""


class CbsnError(Exception):
    """Base of all errors that the commands print without a traceback."""


class ConfigError(CbsnError, ValueError):
    """A flag, hyperparameter or combination of them that cannot work."""


class DataError(CbsnError, ValueError):
    """A dataset, record file or manifest that is missing, broken or of the wrong kind."""


class ImageError(CbsnError, ValueError):
    """A picture that cannot be read, written or denoised."""


class ModelError(CbsnError, ValueError):
    """A model path, saved-model folder or checkpoint that cannot be used."""
