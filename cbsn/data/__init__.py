"""Records, pictures, noise and the tf.data pipeline."""
