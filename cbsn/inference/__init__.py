"""From a noisy picture to a denoised one."""
